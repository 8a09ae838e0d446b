"""What a job does when a part of its own Ray dies under it: say so and end, at once.

Ray itself ends the driver after a minute without a word, leaves some of its processes behind for minutes, or raises
whatever comes first ("KeyError: 'object_store_memory'"). So its two vital processes are watched from here.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transferlib.errors import RayError, StoppedError
from transferlib.on_ray.processes import Process
from transferlib.on_ray.scratch import end_members, members, own_session

log = logging.getLogger("transferlib.job")

VITAL = {"gcs_server": "its control store, gcs_server", "raylet": "its scheduler, raylet"}
"""Programs without which a Ray of one node cannot go on."""
POLL_S = 0.5
LATE_S = 1.5
"""An error may reach the job somewhat before the end of the process that caused it shows."""

Record = Callable[[str], int]
_recorders: list[Record] = []


@contextmanager
def told_of_death(record: Record) -> Iterator[None]:
    """Have this process end when a Ray dies that `ended_with_ray` watches, for the length of a `with` block.

    Args:
        record: Called with what happened before that, maybe twice, and from another thread: the main one may wait for
            an answer of Ray's that never comes. Returns the exit code.
    """
    _recorders.append(record)
    try:
        yield
    finally:
        _recorders.remove(record)


@contextmanager
def ended_with_ray(folder: Path) -> Iterator[None]:
    """Watch the vital processes of the Ray in a folder for the length of a `with` block.

    When one dies the others are ended, and the folder is removed.

    Args:
        folder: As `scratch_folder` made it.

    Raises:
        RayError: Something was raised since one died, and nobody has asked to be told.
    """
    watch = _Watch(folder)
    watch.start()
    try:
        yield
    except StoppedError:
        raise
    except Exception as error:
        if (text := watch.death(LATE_S)) is None:
            raise
        watch.tell(text)
        raise RayError(text) from error
    finally:
        watch.is_over.set()


class _Watch(threading.Thread):
    """Look twice a second whether processes live."""

    def __init__(self, folder: Path) -> None:
        super().__init__(name="watch-ray", daemon=True)
        self.is_over = threading.Event()
        self._folder = folder
        self._vital = {process: name for process in members(folder, own_session()) if (name := _vital_name(process))}
        self._telling = threading.Lock()
        self._is_told = False

    def run(self) -> None:
        while not self.is_over.wait(POLL_S):
            text = self.death(0.0)
            if self.is_over.is_set():
                break  # Ray was being shut down meanwhile
            if text is not None:
                self.tell(text)
                break

    def death(self, timeout_s: float) -> str | None:
        """Return what died, as a sentence; None where all live.

        Args:
            timeout_s: How long to wait for a death.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            dead = [name for process, name in self._vital.items() if not process.is_alive]
            if dead:
                return (
                    f"The Ray of this job died: {dead[0]}, was killed or ended by itself. Too little memory is the "
                    "usual cause (dmesg says so). Checkpoints are kept."
                )
            if time.monotonic() > deadline:
                return None
            time.sleep(POLL_S / 5)

    def tell(self, text: str) -> None:
        """Record a death, clean up, and end this process where that was asked for; a second caller waits for that."""
        with self._telling:
            if self._is_told:
                return
            self._is_told = True
            log.error("failed: %s", text)
            recorders = list(_recorders)
            # At first, since this process may not outlive the others; and again, over what was written meanwhile.
            _record(recorders, text)
            end_members(self._folder, own_session())
            shutil.rmtree(self._folder, ignore_errors=True)
            code = _record(recorders, text)
            if recorders:
                sys.stdout.flush()
                os._exit(code)


def _record(recorders: list[Record], text: str) -> int:
    code = RayError.exit_code
    for record in recorders:
        with suppress(OSError):  # a full disk does not keep the process alive
            code = record(text)
    return code


def _vital_name(process: Process) -> str:
    words = process.command_line
    return VITAL.get(os.path.basename(words[0]), "") if words else ""
