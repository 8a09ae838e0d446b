"""How long a job that has ended waits to be scraped once more, so that Prometheus sees how it ended."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable

MOST_S = 30.0
"""No job waits longer."""
MOST_STOPPED_S = 5.0
"""A job that was told to stop waits no longer than this: whoever stops it may kill it soon."""
_SLACK = 1.5
"""A scraper is taken for gone when it is late by more than half its interval, and a second."""
_POLL_S = 0.2


def last_moment(scraped_at: list[float], ended_at: float, first_s: float) -> float:
    """Return until when to wait for a scrape after the end, on the clock of the arguments, s.

    A scraper that came several times is waited for as long as its longest interval says; one that came once, until half
    a minute after it came; one that never came, as long as was said.

    Args:
        scraped_at: When the last scrapes were, ascending; empty: never.
        ended_at: When the job ended.
        first_s: Seconds to wait for a first scrape.
    """
    if not scraped_at:
        return ended_at + min(first_s, MOST_S)
    gaps = [after - before for before, after in itertools.pairwise(scraped_at)]
    patience = min(MOST_S, _SLACK * max(gaps) + 1.0) if gaps else MOST_S
    return min(ended_at + MOST_S, scraped_at[-1] + patience)


class Scrapes:
    """Note scrapes, and wait for the last one."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=4)
        self._latest_began = float("-inf")
        self._changed = threading.Condition()

    def note(self, began_at: float) -> None:
        """Note a scrape whose answer has been sent.

        Args:
            began_at: When it was asked for, by `time.monotonic`.
        """
        with self._changed:
            self._times.append(time.monotonic())
            self._latest_began = max(self._latest_began, began_at)
            self._changed.notify_all()

    def wait_for_last(self, first_s: float, is_stopped: Callable[[], bool]) -> None:
        """Wait until a scrape that began after this call has been answered, as long as one is to be expected.

        Args:
            first_s: Seconds to wait for a first scrape of a job that was never scraped.
            is_stopped: Whether the job was told to stop.
        """
        ended_at = time.monotonic()
        with self._changed:
            until = last_moment(list(self._times), ended_at, first_s)
            while self._latest_began < ended_at:
                most = ended_at + MOST_STOPPED_S if is_stopped() else until
                left = min(until, most) - time.monotonic()
                if left <= 0.0:
                    return
                self._changed.wait(min(left, _POLL_S))
