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
from typing import NamedTuple

from transferlib.clusters import state_dir
from transferlib.runs import write_atomic

DIR_VARIABLE = "TRANSFERLIB_METRICS_DIR"
# Labels that begin with two underscores are dropped by Prometheus before anything is stored.
PID_LABEL = "__transferlib_pid"
HOST_LABEL = "__transferlib_host"
START_LABEL = "__transferlib_started"


class _Owner(NamedTuple):
    """Name a job's process; an id alone does not: a container that starts again gives the same ones out again."""

    host: str
    pid: int
    started: str
    """Clock ticks after the machine's start; empty: not known."""

    @property
    def is_alive(self) -> bool:
        """Whether it is still there; asked on its own host."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's
        return not self.started or self.started == _started(self.pid)


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
    owner = _Owner(socket.gethostname(), os.getpid(), _started(os.getpid()))
    labels = {HOST_LABEL: owner.host, PID_LABEL: str(owner.pid), START_LABEL: owner.started}
    text = json.dumps([{"targets": [target], "labels": labels}], indent=1) + "\n"
    write_atomic(path, text)
    try:
        yield
    finally:
        if _owner(path) == owner:
            path.unlink(missing_ok=True)


def remove_dead(folder: Path) -> None:
    """Remove the files of jobs of this host whose process is gone; what is not ours is left alone."""
    for path in folder.glob("*.json"):
        owner = _owner(path)
        if owner is not None and owner.host == socket.gethostname() and not owner.is_alive:
            path.unlink(missing_ok=True)


def _owner(path: Path) -> _Owner | None:
    try:
        labels = json.loads(path.read_text())[0]["labels"]
        return _Owner(str(labels[HOST_LABEL]), int(labels[PID_LABEL]), str(labels.get(START_LABEL, "")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _started(pid: int) -> str:
    """Return when a process was started: field 22 of its line in /proc (man 5 proc_pid_stat); empty: not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, LookupError):
        return ""
