"""The Ray that a job runs on: an instance of its own on this machine, or the cluster that started the job.

Our own has a token of its own and a private temporary folder, listens on loopback only, and is gone when the job is.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIB = 1 << 30
LOOPBACK = "127.0.0.1"

ONE_NODE_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""At 0, a Ray keeps to 127.0.0.1 and takes no second node (the name tells where Ray does so by itself)."""

# Read by Ray's processes when they start; none of them changes a result. RAY_AUTH_MODE is absent on purpose: left
# unset, `ray.init` turns token authentication on by itself, while set after `import ray` only half of Ray sees it.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "10",
}


def object_store_bytes(memory_bytes: int, num_streams: int) -> int:
    """Return the object store's size: what the data streams side by side need, within the machine.

    Args:
        memory_bytes: Memory of the machine.
        num_streams: Workers that train at the same time, each with a stream of its own.

    Returns:
        Bytes; at most 30 % of memory and 80 % of the shared memory that is free.
    """
    wanted = GIB // 2 + num_streams * GIB // 2
    return max(100 << 20, min(wanted, int(memory_bytes * 0.3), int(shutil.disk_usage("/dev/shm").free * 0.8)))


def keep_to_loopback() -> None:
    """Make a Ray that this process starts listen on loopback only; call it before `import ray`, which reads it.

    Otherwise Ray 2.60 takes 127.0.0.1 for the machine's outward address, and binds most ports to every interface.
    """
    os.environ[ONE_NODE_VARIABLE] = "0"


@contextmanager
def local_ray(*, cpus: int, gpus: int, object_store: int, dashboard: bool = False) -> Iterator[None]:
    """Run a single-node Ray for the length of a `with` block.

    Args:
        cpus: Logical CPUs, at least 2 (with one, Ray Data never delivers).
        gpus: Logical GPUs.
        object_store: Bytes of the object store.
        dashboard: Whether to start Ray's dashboard (2 to 3 s more).
    """
    import ray

    # Unix socket paths end at 107 bytes: the folder must be short, whatever TMPDIR says.
    base = tempfile.gettempdir()
    # Ray opens its own folder to everybody; the one above it, with the token, stays ours alone.
    folder = Path(tempfile.mkdtemp(prefix="tl-", dir=base if len(base) <= 20 else "/tmp"))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    port = _free_port()
    environment: dict[str, str] = {
        **RAY_ENVIRONMENT,
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_GCS_SERVER_PORT": str(port),
        # Ray Train's watcher actors look for "the" Ray of a host; with two of them they need to be told.
        "RAY_ADDRESS": f"{LOOPBACK}:{port}",
    }
    before = {name: os.environ.get(name) for name in (*environment, "RAY_AUTH_MODE")}
    os.environ.pop("RAY_AUTH_MODE", None)
    os.environ.update(environment)
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            object_store_memory=object_store,
            include_dashboard=dashboard,
            dashboard_host=LOOPBACK,
            logging_level=logging.WARNING,
            log_to_driver=True,
            _node_ip_address=LOOPBACK,
            _temp_dir=str(folder / "ray"),
        )
        yield
    finally:
        ray.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster_ray() -> Iterator[None]:
    """Use the cluster whose job supervisor started this process, for the length of a `with` block.

    Where it is and its token stand in this process's environment, which the supervisor has set.
    """
    import ray

    ray.init(logging_level=logging.WARNING, log_to_driver=True)
    try:
        yield
    finally:
        ray.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
