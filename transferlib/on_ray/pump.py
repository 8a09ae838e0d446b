"""Run a generator in a thread of its own, so that what it waits for overlaps with what its consumer does."""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

_CLOSE_TIMEOUT_S = 20.0


class Pump(Generic[Item]):
    """Pull a generator's items ahead of the consumer; the generator is made, run and closed in one thread.

    Args:
        make: Makes the generator.
        depth: Items kept ready; one more waits in the generator.
    """

    def __init__(self, make: Callable[[], Generator[Item, None, None]], depth: int = 1) -> None:
        self._make = make
        self._depth = depth
        self._ready: deque[Item] = deque()
        self._error: BaseException | None = None
        self._has_ended = False
        self._is_closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="transferlib-pump", daemon=True)
        # A stream that outlives Ray would make Ray Data start a Ray of its own while the process ends.
        atexit.register(self.close)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        """Yield the items in order; raise what the generator raised."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._ready or self._has_ended)
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
        self._thread.join(_CLOSE_TIMEOUT_S)
        atexit.unregister(self.close)

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
