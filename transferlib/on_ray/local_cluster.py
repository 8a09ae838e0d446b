"""A cluster of several Ray nodes as processes of this machine, which outlives the command that starts it.

Every port is bound to 127.0.0.1 and every door asks for a token of the cluster's own. The nodes live in sessions of
their own and are found again by their recorded process ids, each checked to be still what it was.

    <temp dir, 0700>/  lock  token (0600)  tmp/  node-1.log …  node-1/ …   Ray's own folders, one a node
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

from transferlib.clusters import ClusterRecord, forget_cluster, record_cluster, recorded_cluster, state_dir
from transferlib.errors import ClusterUnreachableError, TransferlibError, UsageError
from transferlib.on_ray import processes
from transferlib.on_ray.cluster_state import NODE_SCRIPT, alive_nodes, ask_cluster, node_processes
from transferlib.on_ray.node_shares import NodeShare
from transferlib.on_ray.scratch import PREFIX, TEMPORARY, short_base, sweep
from transferlib.on_ray.session import LOOPBACK, RAY_ENVIRONMENT

MARKER = "TRANSFERLIB_CLUSTER"
"""Environment variable of all that runs on a cluster: its temp dir."""
START_TIMEOUT_S = 90.0
STOP_GRACE_S = 8.0
POLL_S = 0.1
TAIL_LINES = 15
NOT_FOR_NODES = ("RAY_", "TUNE_", "TRANSFERLIB_")
"""Variables of the user that would change what nodes or jobs do, by how they begin."""
FOR_NODES = ("RAY_GRAFANA_", "RAY_PROMETHEUS_", "TRANSFERLIB_METRICS_")
"""Those among them that are meant for the dashboard and for jobs."""


def start_cluster(
    shares: Sequence[NodeShare],
    port: int,
    *,
    environ: Mapping[str, str] | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> ClusterRecord:
    """Start the nodes, wait until all of them are alive and the Jobs API answers, and record the cluster.

    What was started is ended again when that fails.

    Args:
        shares: What each node offers; the first is the head.
        port: Of the dashboard and the Jobs API.
        environ: Environment variables to start from; None: this process's.
        timeout_s: Seconds until the start counts as failed.

    Raises:
        UsageError: A cluster of this user runs already, or the port is taken.
        ClusterUnreachableError: It did not answer in time.
        TransferlibError: A node died; with the end of its log.
    """
    with _only_one_at_a_time():
        _refuse_second()
        _refuse_taken(port)
        sweep(Path(short_base()))
        record = _new_record(port)
        try:
            _start_nodes(record, shares, os.environ if environ is None else environ, time.monotonic() + timeout_s)
        except BaseException:
            _end(record)
            raise
    return record


def stop_cluster(record: ClusterRecord) -> None:
    """End a cluster's nodes and all they started, remove its temp dir and forget it.

    Args:
        record: Of a cluster that runs, or of one that is gone. Where another has been started since it was read, that
            one is left alone: nobody starts a second before the first has ended.
    """
    with _only_one_at_a_time():
        newest = recorded_cluster() or record
        if newest.temp_dir == record.temp_dir:
            _end(newest)


def node_environment(environ: Mapping[str, str], record: ClusterRecord, share: NodeShare) -> dict[str, str]:
    """Return the environment of one node, which its jobs inherit.

    Args:
        environ: The user's; what steers Ray, Tune or this package in it stays behind.
        record: The cluster's.
        share: The node's.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(NOT_FOR_NODES) or name.startswith(FOR_NODES)
    }
    # What killed trials and jobs leave behind goes with the cluster; on another disk, if the user chose one, it stays.
    scratch = Path(record.temp_dir) / TEMPORARY
    temporary = {"TMPDIR": str(scratch)} if scratch.is_dir() else {}
    return {
        **kept,
        **temporary,
        **RAY_ENVIRONMENT,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": record.token_path,
        # Ray takes 127.0.0.1 for what it is only where clusters of several machines are switched off.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Draining is for machines that others take over from; here it would hold up the end by 30 s.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "CUDA_VISIBLE_DEVICES": ",".join(share.gpus),
        # Jobs begin with `exec python`: this one, which has transferlib.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)]),
        MARKER: record.temp_dir,
    }


def _new_record(port: int) -> ClusterRecord:
    base = short_base()
    folder = Path(mkdtemp(prefix=PREFIX, dir=base))
    if base == gettempdir():
        (folder / TEMPORARY).mkdir(mode=0o700)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    gcs = f"{LOOPBACK}:{_free_port()}"
    return ClusterRecord(f"http://{LOOPBACK}:{port}", gcs, str(token), str(folder), [], time.time())


def _start_nodes(
    record: ClusterRecord, shares: Sequence[NodeShare], environ: Mapping[str, str], deadline: float
) -> None:
    for share in shares:
        pid = _spawn(record, share, node_environment(environ, record, share))
        record.node_pids.append(pid)
        # At once, so that `down` finds what a killed `up` left.
        record_cluster(record)
        if len(record.node_pids) == 1:
            _wait(record, shares[:1], deadline, lambda: _gcs_listens(record), "its head does not listen")
    names = {share.name for share in shares}

    def is_up() -> bool:
        alive = {node["node_name"] for node in alive_nodes(record) or []}
        return alive >= names and ask_cluster(record, "/api/jobs/") is not None

    _wait(record, shares, deadline, is_up, "not all nodes are alive with the Jobs API answering")


def _spawn(record: ClusterRecord, share: NodeShare, environment: Mapping[str, str]) -> int:
    """Start one node in a session of its own; return its process id."""
    log = f"{record.temp_dir}/{share.name}.log"
    return os.posix_spawn(
        sys.executable,
        # -P: nothing of the current folder is imported.
        [sys.executable, "-P", str(NODE_SCRIPT), json.dumps(_options(record, share))],
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _options(record: ClusterRecord, share: NodeShare) -> dict[str, Any]:
    """Return what the node's script wants to know, in Ray's own names."""
    options: dict[str, Any] = {
        "is_head": not record.node_pids,
        "node_name": share.name,
        "node_ip_address": LOOPBACK,
        "temp_dir": f"{record.temp_dir}/{share.name}",
        "num_cpus": share.cpus,
        "num_gpus": len(share.gpus),
        "resources": {share.name: 1},
        "memory": share.memory_bytes,
        "object_store_memory": share.object_store_bytes,
        # 0: a free one. The nodes share an address, so no port may have a fixed number.
        "min_worker_port": 0,
        "max_worker_port": 0,
        "dashboard_agent_listen_port": 0,
    }
    if record.node_pids:
        return {**options, "gcs_address": record.gcs_address}
    return {
        **options,
        "gcs_server_port": int(record.gcs_address.rpartition(":")[2]),
        "include_dashboard": True,
        "dashboard_host": LOOPBACK,
        "dashboard_port": int(record.address.rpartition(":")[2]),
    }


def _wait(
    record: ClusterRecord, shares: Sequence[NodeShare], deadline: float, is_so: Callable[[], bool], otherwise: str
) -> None:
    """Wait for a condition while the nodes live, whose shares these are.

    Raises:
        TransferlibError: A node died.
        ClusterUnreachableError: Time is up.
    """
    while not is_so():
        living = node_processes(record)
        for share, pid in zip(shares, record.node_pids, strict=True):
            if pid not in living:
                raise TransferlibError(f"{share.name} of the cluster died while it started. {_log_tail(record, share)}")
        if time.monotonic() > deadline:
            tails = "\n".join(_log_tail(record, share) for share in shares)
            raise ClusterUnreachableError(f"The cluster was ended, since in the time given to it {otherwise}. {tails}")
        time.sleep(POLL_S)


def _gcs_listens(record: ClusterRecord) -> bool:
    host, _, port = record.gcs_address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _log_tail(record: ClusterRecord, share: NodeShare) -> str:
    """Return the end of a node's own log, and of the dashboard's, which dies without a word there."""
    texts = []
    for path in (f"{share.name}.log", f"{share.name}/session_latest/logs/dashboard.log"):
        try:
            lines = (Path(record.temp_dir) / path).read_text(errors="replace").splitlines()[-TAIL_LINES:]
        except OSError:
            continue  # it did not come that far
        texts.append("\n".join([f"The end of {path}:", *lines]))
    return "\n".join(texts)


def _end(record: ClusterRecord) -> None:
    """End the nodes, the head last, then whatever else of the cluster is left; remove its traces."""
    nodes = node_processes(record)
    marker = f"{MARKER}={record.temp_dir}"
    everyone = _members(nodes, marker)
    for pids in (record.node_pids[1:], record.node_pids[:1]):
        some = {nodes[pid] for pid in pids if pid in nodes}
        processes.send_signal(some, signal.SIGTERM)
        processes.wait_for_end(some, STOP_GRACE_S)
        processes.collect_ended(pids)
    everyone |= _members(nodes, marker)
    processes.send_signal(everyone, signal.SIGKILL)
    processes.wait_for_end(everyone, STOP_GRACE_S)
    processes.collect_ended(record.node_pids)
    _remove_folder(record)
    forget_cluster()


def _members(nodes: Mapping[int, processes.Process], marker: str) -> set[processes.Process]:
    roots = {pid for pid, process in nodes.items() if process.is_alive}
    return {process for process in processes.family(roots, marker) if process.pid != os.getpid()}


def _remove_folder(record: ClusterRecord) -> None:
    folder = Path(record.temp_dir)
    # Only what `_new_record` made: a record is a file, and a file can be edited.
    if folder.name.startswith(PREFIX) and Path(record.token_path) == folder / "token":
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _only_one_at_a_time() -> Iterator[None]:
    folder = state_dir()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(folder / "cluster.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError("Another `submit cluster up` or `down` is at work. Wait for it to end.") from None
        yield


def _refuse_second() -> None:
    record = recorded_cluster()
    if record is None:
        return
    if node_processes(record):
        raise UsageError(
            f"A cluster of yours runs already, at {record.address}. Use it, or end it first: submit cluster down"
        )
    _end(record)  # gone, e.g. with a restart of the machine: only its traces are left


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise UsageError(
                f"--port {port}: {error.strerror} at {LOOPBACK}. Use another --port, e.g. --port {_free_port()}."
            ) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
