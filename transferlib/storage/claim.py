"""Who writes a trial's folder on this node, and whether the store has all of it: a file beside the trial's own."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transferlib.errors import RunFolderError
from transferlib.records import JsonRecord
from transferlib.runs import write_atomic

_POLL_S = 0.1


@dataclass(frozen=True)
class ClaimNote(JsonRecord):
    """Say what the last process that wrote a trial's folder left."""

    attempt: int
    start: int
    """Of the trial's lease in the store; a newer one there means that the store knows better."""
    is_stored: bool
    """False from the start on, until everything is in the store: false at the end of a process that was killed."""
    pid: int


class FolderClaim:
    """Hold a trial's folder on this node against others. It goes with the process, however that ends.

    Args:
        folder: Of the trial; made when it is not there.
        purpose: "write", for as long as a process trains; "fetch", while other ranks bring its files here.
    """

    def __init__(self, folder: Path, purpose: Literal["write", "fetch"] = "write") -> None:
        self._folder = folder
        self._lock = folder / f".{purpose}.lock"

    @contextmanager
    def held(self, wait_s: float = 0.0) -> Iterator[bool]:
        """Hold the folder; the value says whether that came true, or another process has it.

        Args:
            wait_s: How long to wait for another.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_s
        with open(self._lock, "a", encoding="utf-8") as file:
            while not (is_mine := _try_lock(file.fileno())) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            yield is_mine

    def note(self) -> ClaimNote | None:
        """Return what the last writer left; None: nobody wrote here, or it cannot be read and the store counts."""
        try:
            return ClaimNote.from_json((self._folder / ".mirror.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None

    def write_note(self, attempt: int, start: int, *, is_stored: bool) -> None:
        """Leave a note; only the holder may."""
        note = ClaimNote(attempt, start, is_stored, os.getpid())
        write_atomic(self._folder / ".mirror.json", note.to_json() + "\n")

    def busy(self, wait_s: float) -> RunFolderError:
        """Return the error for a folder that another process did not give up."""
        note = self.note()
        return RunFolderError(
            f"{self._folder} is still written by process {'?' if note is None else note.pid} after {wait_s:.0f} s. "
            "End that process, or let the trial start on another node."
        )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
