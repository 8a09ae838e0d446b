"""Work with a store beside training: repeated in a thread, told when it fails, done to the end when it must be."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from transferlib.errors import StorageError
from transferlib.storage.lease import LeaseLostError

logger = logging.getLogger("transferlib.storage")

TELL_EVERY_S = 60.0
"""A store that stays away is told of again after this long."""
MAX_PAUSE_S = 10.0


class Repeated:
    """Call something again and again in a thread, until stopped or the lease is lost.

    A failure neither ends it nor reaches the caller: it is logged, and tried again after a growing pause.

    Args:
        name: What it does, for the log: "Sending checkpoints".
        every_s: Pause between the end of a call and the next.
        call: What to do.
        on_lost: Called once, when a newer process has the lease.
        max_pause_s: Longest pause after failures.
    """

    def __init__(
        self,
        name: str,
        every_s: float,
        call: Callable[[], object],
        on_lost: Callable[[LeaseLostError], None],
        *,
        max_pause_s: float = MAX_PAUSE_S,
    ) -> None:
        self._name = name
        self._every_s = every_s
        self._call = call
        self._on_lost = on_lost
        self._max_pause_s = max(max_pause_s, every_s)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, once the call in progress has returned."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _repeat(self) -> None:
        pause, told_at, is_failing = self._every_s, float("-inf"), False
        while not self._ended.wait(pause):
            try:
                self._call()
            except LeaseLostError as error:
                self._on_lost(error)
                return
            except Exception as error:  # of any kind: flush() meets it again, in the caller's thread
                pause, is_failing = min(2 * pause, self._max_pause_s), True
                if time.monotonic() - told_at >= TELL_EVERY_S:
                    told_at = time.monotonic()
                    is_known = isinstance(error, StorageError | OSError)
                    logger.warning("%s fails, and is tried again: %s", self._name, error, exc_info=not is_known)
            else:
                if is_failing:
                    logger.warning("%s works again.", self._name)
                pause, told_at, is_failing = self._every_s, float("-inf"), False


def persist(what: str, call: Callable[[], None], patience_s: float, wait: Callable[[float], object]) -> None:
    """Call something until it works.

    Args:
        what: For the error: "What trial x has written".
        call: What to do.
        patience_s: How long to try again after the first failure.
        wait: Waits for some seconds.

    Raises:
        LeaseLostError: Another process writes now.
        StorageError: It still failed after that time.
    """
    pause, since = 0.5, time.monotonic()
    while True:
        try:
            return call()
        except LeaseLostError:
            raise
        except (StorageError, OSError) as error:
            if time.monotonic() - since + pause > patience_s:
                raise StorageError(
                    f"{what} could not be stored, after {patience_s:.0f} s of trying: {error} It is kept on this node "
                    "alone. When the store is back, go on with --resume: what is missing is done again."
                ) from error
            wait(pause)
            pause = min(2 * pause, MAX_PAUSE_S)
