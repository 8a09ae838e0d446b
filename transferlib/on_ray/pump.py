"""Run a generator in a thread of its own, so that what it waits for overlaps with what its consumer does."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

CLOSE_TIMEOUT_S = 20.0
GIVEN_UP_S = 1.0
"""How long a generator may take to close that has made nothing for so long that it was given up."""
LOOK_S = 0.5


class Pump(Generic[Item]):
    """Pull a generator's items ahead of the consumer; the generator is made, run and closed in one thread.

    Args:
        make: Makes the generator.
        depth: Items kept ready; one more waits in the generator.
        look: Called twice a second while the consumer waits for an item, with the seconds that it has waited.
    """

    def __init__(
        self,
        make: Callable[[], Generator[Item, None, None]],
        depth: int = 1,
        look: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._make = make
        self._depth = depth
        self._look = look
        self._ready: deque[Item] = deque()
        self._error: BaseException | None = None
        self._has_ended = False
        self._close_timeout_s = CLOSE_TIMEOUT_S
        self._is_closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="transferlib-pump", daemon=True)
        # A stream that outlives Ray would make Ray Data start a Ray of its own while the process ends.
        atexit.register(self.close)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        """Yield the items in order; raise what the generator raised, or what `look` does."""
        while True:
            with self._change:
                began = time.monotonic()
                while not self._change.wait_for(lambda: self._ready or self._has_ended, LOOK_S):
                    self._give_up_or_wait(time.monotonic() - began)
                if not self._ready:
                    break
                item = self._ready.popleft()
                self._change.notify_all()
            yield item
            del item
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Close the generator and wait until it is; whatever is ready is dropped."""
        with self._change:
            self._is_closed = True
            self._ready.clear()
            self._change.notify_all()
        self._thread.join(self._close_timeout_s)
        atexit.unregister(self.close)

    def _give_up_or_wait(self, seconds: float) -> None:
        try:
            self._look(seconds)
        except BaseException:
            self._close_timeout_s = GIVEN_UP_S
            raise

    def _run(self) -> None:
        items = self._make()
        try:
            for item in items:
                if not self._put(item):
                    break
                del item
        except BaseException as error:  # whatever it is belongs to the consumer
            self._error = error
        finally:
            items.close()
            with self._change:
                self._has_ended = True
                self._change.notify_all()

    def _put(self, item: Item) -> bool:
        with self._change:
            self._change.wait_for(lambda: self._is_closed or len(self._ready) < self._depth)
            if not self._is_closed:
                self._ready.append(item)
                self._change.notify_all()
            return not self._is_closed
