"""The processes of this machine as /proc tells them: who belongs to whom, and ending just those.

A process id alone names nobody: it is used again. So each is held with its start time, which no two owners share.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
POLL_S = 0.05


@dataclass(frozen=True)
class Process:
    """Name one process for good."""

    pid: int
    started: int
    """Clock ticks after the machine's start."""

    @property
    def is_alive(self) -> bool:
        """Whether it is still there; one that ended and only waits to be collected is not."""
        return read_process(self.pid) == self

    @property
    def command_line(self) -> list[str]:
        """Return what it was started with; empty when it is gone."""
        return _strings(PROC / str(self.pid) / "cmdline")

    @property
    def environment(self) -> list[str]:
        """Return NAME=VALUE lines it was started with; empty when it is gone, of another user, or writes over them."""
        return _strings(PROC / str(self.pid) / "environ")


def read_process(pid: int) -> Process | None:
    """Return the process that has an id now, or None."""
    fields = _stat(pid)
    return Process(pid, int(fields[19])) if fields and fields[0] not in ("Z", "X") else None


def family(roots: Collection[int], marker: str) -> set[Process]:
    """Return the processes under some, themselves included, and all that were started with a variable.

    Args:
        roots: Process ids.
        marker: A line of the environment, `NAME=VALUE`; finds those whose parents have ended.
    """
    children: dict[int, list[Process]] = {}
    found: list[Process] = []
    for pid in (int(entry) for entry in os.listdir(PROC) if entry.isdigit()):
        process, fields = read_process(pid), _stat(pid)
        if process is not None and fields:
            children.setdefault(int(fields[1]), []).append(process)
            if pid in roots or marker in process.environment:
                found.append(process)
    members: set[Process] = set()
    while found:
        process = found.pop()
        if process not in members:
            members.add(process)
            found += children.get(process.pid, [])
    return members


def session(number: int) -> set[Process]:
    """Return the processes of a session.

    Args:
        number: Process id of the one that began it, which may have ended.
    """
    pids = [int(entry) for entry in os.listdir(PROC) if entry.isdigit()]
    of_session = {pid for pid in pids if (fields := _stat(pid)) and int(fields[3]) == number}
    return {process for pid in of_session if (process := read_process(pid)) is not None}


def has_open(process: Process, folder: Path) -> bool:
    """Say whether a process has a file of a folder open, or was started with a path in it."""
    if any(str(folder) in word for word in process.command_line):
        return True
    files = PROC / str(process.pid) / "fd"
    with suppress(OSError):
        for name in os.listdir(files):
            with suppress(OSError):
                if os.readlink(files / name).startswith(f"{folder}/"):
                    return True
    return False


def send_signal(processes: Collection[Process], number: signal.Signals) -> None:
    """Send a signal to those that are still alive."""
    for process in processes:
        if process.is_alive:
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue  # it ended between the two lines


def wait_for_end(processes: Collection[Process], timeout_s: float) -> set[Process]:
    """Wait until processes have ended; return those that have not in time."""
    deadline = time.monotonic() + timeout_s
    left = set(processes)
    while left := {process for process in left if process.is_alive}:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    return left


def collect_ended(pids: Collection[int]) -> None:
    """Take note of the end of processes that this one started, so that the system forgets them."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue  # started by another command


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on; empty when there is no such process."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _strings(path: Path) -> list[str]:
    try:
        return list(_split(path.read_bytes()))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def _split(raw: bytes) -> Iterator[str]:
    yield from (part.decode(errors="surrogateescape") for part in raw.split(b"\0") if part)
