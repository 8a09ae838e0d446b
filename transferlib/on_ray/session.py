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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from transferlib.errors import RayError
from transferlib.on_ray.ray_death import ended_with_ray
from transferlib.on_ray.scratch import (
    TEMPORARY,
    end_members,
    own_session,
    scratch_folder,
    short_base,
    temporary_files_in,
)
from transferlib.words import without_escapes

log = logging.getLogger("transferlib.job")

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

SET_AT_START = ("RAY_AUTH_MODE", "RAY_GCS_SERVER_PORT", "RAY_ADDRESS")


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

    Raises:
        RayError: It did not start, twice; or a part of it died under the block, and nobody else was to be told.
    """
    import ray

    options = {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "object_store_memory": object_store,
        "include_dashboard": dashboard,
    }
    with ExitStack() as stack:
        # Ray opens its own folder to everybody; the one above it, with the token, stays ours alone.
        folder = stack.enter_context(scratch_folder(short_base()))
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        stack.enter_context(_temporary_files_beside(folder))
        stack.enter_context(_environment({**RAY_ENVIRONMENT, "RAY_AUTH_TOKEN_PATH": str(token)}))
        # Whatever is still there when Ray has shut down would write into the folder, and so make it again.
        stack.callback(end_members, folder, own_session())
        _start(folder, options)
        stack.callback(ray.shutdown)
        with ended_with_ray(folder):
            yield


def _start(folder: Path, options: Mapping[str, Any]) -> None:
    """Start Ray.

    Raises:
        RayError: It did not start twice.
    """
    import ray

    def start() -> None:
        port = _free_port()
        # Ray Train's watcher actors look for "the" Ray of a host; with two of them they need to be told.
        os.environ.update({"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"{LOOPBACK}:{port}"})
        ray.init(
            address="local",
            dashboard_host=LOOPBACK,
            logging_level=logging.WARNING,
            log_to_driver=True,
            _node_ip_address=LOOPBACK,
            _temp_dir=str(folder / "ray"),
            **options,
        )

    _try_twice(start, lambda: end_members(folder, own_session()), "Ray did not start on this machine")


def _try_twice(start: Callable[[], object], clean: Callable[[], None], failed: str) -> None:
    """Start Ray, or join one; a busy machine may need a second try, since Ray gives its parts half a minute.

    Args:
        start: Calls `ray.init`.
        clean: Ends what a try has left.
        failed: What to say, without its reason.

    Raises:
        RayError: It failed twice.
    """
    import ray

    for is_last in (False, True):
        try:
            start()
            return
        except Exception as error:
            log.warning("%s: %s", failed, error)
            ray.shutdown()
            clean()
            if is_last:
                text = f"{failed}, in two tries: {_why(error)} {_load()}"
                raise RayError(text.rstrip()) from error


def _why(error: Exception) -> str:
    """Return the first sentence of an error of Ray's."""
    text = without_escapes(str(error)).strip().splitlines()
    first = text[0].split(". ")[0].rstrip(".") if text else ""
    return f"{first or type(error).__name__}."


def _load() -> str:
    """Return how busy the machine is, as a sentence; empty where it is not."""
    load, cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
    return (
        f"The machine is busy: {load:.0f} processes want its {cpus} CPUs. Start again when less runs here."
        if load > 1.5 * cpus
        else ""
    )


@contextmanager
def cluster_ray() -> Iterator[None]:
    """Use the cluster whose job supervisor started this process, for the length of a `with` block.

    Where it is and its token stand in this process's environment, which the supervisor has set.

    Raises:
        RayError: It could not be joined, twice.
    """
    import ray

    with scratch_folder(tempfile.gettempdir()) as folder, temporary_files_in(folder / TEMPORARY, for_children=False):
        _try_twice(
            lambda: ray.init(logging_level=logging.WARNING, log_to_driver=True),
            lambda: None,
            "The cluster that started this job did not let it join",
        )
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _temporary_files_beside(folder: Path) -> Iterator[None]:
    """Have temporary files made in a folder that goes with the job, on the disk that the user has chosen for them."""
    base = tempfile.gettempdir()
    with ExitStack() as stack:
        place = folder if str(folder.parent) == base else stack.enter_context(scratch_folder(base))
        stack.enter_context(temporary_files_in(place / TEMPORARY, for_children=True))
        yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the length of a `with` block, and those of Ray's that are set meanwhile; put all back then."""
    before = {name: os.environ.get(name) for name in (*values, *SET_AT_START)}
    os.environ.pop("RAY_AUTH_MODE", None)
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
