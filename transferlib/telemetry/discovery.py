"""Tell Prometheus which jobs are running now: a folder with one service-discovery file a job (`file_sd_configs`).

A job writes its file when its exporter listens and removes it at its end. What a killed job left is removed by the next
one that starts on that host.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from transferlib.clusters import state_dir
from transferlib.runs import write_atomic

DIR_VARIABLE = "TRANSFERLIB_METRICS_DIR"
# Labels that begin with two underscores are dropped by Prometheus before anything is stored.
PID_LABEL = "__transferlib_pid"
HOST_LABEL = "__transferlib_host"


def metrics_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder that Prometheus watches: $TRANSFERLIB_METRICS_DIR, or `metrics` in this user's state folder.

    Args:
        environ: Environment variables; None: this process's.
    """
    environ = os.environ if environ is None else environ
    typed = environ.get(DIR_VARIABLE, "")
    return Path(typed).absolute() if typed else state_dir(environ) / "metrics"


@contextmanager
def announced(folder: Path, run_id: str, target: str) -> Iterator[None]:
    """List a job for the length of a `with` block.

    Args:
        folder: That Prometheus watches; made if it is missing.
        run_id: Names the file.
        target: host:port at which Prometheus reaches the job's exporter.

    Raises:
        OSError: The folder or the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_dead(folder)
    path = folder / f"{run_id}.json"
    labels = {PID_LABEL: str(os.getpid()), HOST_LABEL: socket.gethostname()}
    text = json.dumps([{"targets": [target], "labels": labels}], indent=1) + "\n"
    write_atomic(path, text, is_durable=False)
    try:
        yield
    finally:
        if _owner(path) == (socket.gethostname(), os.getpid()):
            path.unlink(missing_ok=True)


def remove_dead(folder: Path) -> None:
    """Remove the files of jobs of this host whose process is gone; what is not ours is left alone."""
    for path in folder.glob("*.json"):
        host, pid = _owner(path) or ("", 0)
        if host == socket.gethostname() and not _is_alive(pid):
            path.unlink(missing_ok=True)


def _owner(path: Path) -> tuple[str, int] | None:
    try:
        labels = json.loads(path.read_text())[0]["labels"]
        return str(labels[HOST_LABEL]), int(labels[PID_LABEL])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
