import threading
import time
from collections.abc import Generator
from itertools import count

import pytest

from transferlib.on_ray.pump import Pump


def test_items_come_in_order_and_end() -> None:
    pump = Pump(lambda: (i * i for i in range(50)))
    assert list(pump) == [i * i for i in range(50)]
    pump.close()


def test_items_are_made_before_they_are_asked_for_but_not_without_bound() -> None:
    made: list[int] = []
    waits = threading.Event()

    def make() -> Generator[int, None, None]:
        for i in count():
            made.append(i)
            if i == 3:
                waits.set()
            yield i

    pump = Pump(make, depth=3)
    assert waits.wait(10)  # three are ready, the fourth has nowhere to go
    pump.close()
    assert made == [0, 1, 2, 3]


def test_what_the_generator_raises_reaches_the_consumer_after_the_items_before_it() -> None:
    def make() -> Generator[int, None, None]:
        yield 1
        raise LookupError("no more")

    pump = Pump(make)
    items = iter(pump)
    assert next(items) == 1
    with pytest.raises(LookupError, match="no more"):
        next(items)
    pump.close()


def test_closing_closes_the_generator_in_its_own_thread_and_ends_the_thread() -> None:
    threads: list[str] = []

    def make() -> Generator[int, None, None]:
        try:
            yield from count()
        finally:
            threads.append(threading.current_thread().name)

    before = threading.active_count()
    pump = Pump(make)
    assert next(iter(pump)) == 0
    pump.close()
    pump.close()
    assert threads == ["transferlib-pump"]
    assert threading.active_count() == before


def test_a_closed_pump_has_no_more_items() -> None:
    pump = Pump(lambda: (i for i in count()))
    items = iter(pump)
    next(items)
    pump.close()
    assert list(items) == []


def test_a_consumer_that_waits_in_vain_can_give_up_and_leave() -> None:
    ends = threading.Event()

    def make() -> Generator[int, None, None]:
        ends.wait(30)
        yield 1

    def look(seconds: float) -> None:
        if seconds > 1:
            raise TimeoutError("nothing came")

    pump = Pump(make, look=look)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="nothing came"):
        next(iter(pump))
    pump.close()
    assert time.monotonic() - began < 5
    ends.set()
