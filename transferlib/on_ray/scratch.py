"""Folders for what a job leaves behind while it works: held by a lock, removed with the job, swept where it could not.

    <temp dir>/tl-xxxxxxxx/  (0700)  lock token ray/ tmp/

Everything temporary goes in there (Ray's sessions, Tune's records, what libraries put under TMPDIR). A job that is
killed removes nothing; the next one that starts on the machine does. A lock goes with its process, however that ends,
so a folder whose lock is free is nobody's, on the machine that the lock names: others may not see that it is held.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transferlib.on_ray import processes

PREFIX = "tl-"
NAME = re.compile(r"tl-[a-z0-9_]{8}")
"""As `mkdtemp` makes them."""
CONTENT = re.compile(r"lock|token|ray|tmp|node-\d+(\.log)?")
"""What our folders hold; one that holds anything else is another's, whatever its name."""
LOCK = "lock"
TEMPORARY = "tmp"
"""The folder within that TMPDIR names."""
TOKEN_VARIABLE = "RAY_AUTH_TOKEN_PATH"
LONGEST_BASE = 20
"""Characters. Unix socket paths end at 107 bytes, and Ray's own part is long."""
SETTLED_S = 60.0
"""A folder without a lock is of processes that wrote once more after it was removed, or of a cluster that is starting:
one that is younger may be about to get its first process."""
END_S = 5.0


def short_base() -> str:
    """Return the folder for temporary ones that Ray's sockets lie in: the system's, or /tmp where that is too long."""
    base = tempfile.gettempdir()
    return base if len(base) <= LONGEST_BASE else "/tmp"


@contextmanager
def scratch_folder(base: str) -> Iterator[Path]:
    """Hold a new folder for the length of a `with` block; those that dead jobs left beside it are removed first.

    Args:
        base: Where to make it.
    """
    sweep(Path(base))
    folder, lock = _make(base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def temporary_files_in(folder: Path, *, for_children: bool) -> Iterator[None]:
    """Let this process make its temporary files in a folder, for the length of a `with` block.

    Args:
        folder: Is made.
        for_children: Whether processes that are started meanwhile do so too.
    """
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    folder.mkdir(mode=0o700, exist_ok=True)
    tempfile.tempdir = str(folder)
    if for_children:
        os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        if for_children and variable is None:
            os.environ.pop("TMPDIR", None)
        elif for_children and variable is not None:
            os.environ["TMPDIR"] = variable


def members(folder: Path, session: int | None) -> set[processes.Process]:
    """Return the processes of the Ray whose token lies in a folder, without this one.

    Args:
        folder: Holds the token.
        session: Of the job, where it leads one: Ray's workers write over their environment, and those whose parent is
            dead are found by this alone.
    """
    found = processes.family((), f"{TOKEN_VARIABLE}={folder / 'token'}")
    if session is not None:
        found |= {process for process in processes.session(session) if processes.has_open(process, folder)}
    return {process for process in found if process.pid != os.getpid()}


def own_session() -> int | None:
    """Return this process's session where it leads one: all in it are its own."""
    return os.getpid() if os.getsid(0) == os.getpid() else None


def end_members(folder: Path, session: int | None) -> None:
    """Kill the processes of a folder's Ray, and wait for their end, so that none makes the folder anew."""
    left = members(folder, session)
    deadline = time.monotonic() + END_S
    while left and time.monotonic() < deadline:
        processes.send_signal(left, signal.SIGKILL)
        processes.wait_for_end(left, 1.0)
        left = members(folder, session)


def sweep(base: Path) -> None:
    """Remove the folders of jobs and clusters that are dead, and end what is left of their processes.

    Args:
        base: The folder that they are in. What is of another user, or may be of another program, is left alone.
    """
    with suppress(OSError):
        for folder in base.glob(f"{PREFIX}*"):
            if NAME.fullmatch(folder.name):
                with suppress(OSError):
                    _remove_dead(folder)


def _remove_dead(folder: Path) -> None:
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
        return
    if not all(CONTENT.fullmatch(name) for name in os.listdir(folder)):
        return
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        is_young = time.time() - state.st_mtime < SETTLED_S
        if not is_young and _is_rays(folder) and not members(folder, None):
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        host, _, rest = os.read(lock, 512).decode(errors="replace").partition("\n")
        if host != os.uname().nodename:
            return
        boot, _, session = rest.partition("\n")
        # Numbers of sessions are used again after a start of the machine, and in another container.
        end_members(folder, int(session) if boot == _boot() and session.isdigit() else None)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return  # its job is alive
    finally:
        os.close(lock)


def _make(base: str) -> tuple[Path, int]:
    """Make a folder and take its lock; return both. A sweep may be quicker than the lock: then there is another."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        with suppress(FileNotFoundError):
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            with suppress(OSError):  # a disk without locks: nobody sweeps there either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if (folder / LOCK).exists():
                os.write(lock, f"{os.uname().nodename}\n{_boot()}\n{own_session() or ''}".encode())
                return folder, lock
            os.close(lock)


def _boot() -> str:
    """Return what names one run of a machine, or of a container on it: within, a session's number is its own."""
    boot = (processes.PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink(processes.PROC / 'self/ns/pid')}"


def _is_rays(folder: Path) -> bool:
    """Say whether a folder without a lock holds what only a Ray of ours leaves there."""
    return any((folder / "ray").glob("session_*")) or any(
        name == "token" or name.startswith("node-") for name in os.listdir(folder)
    )
