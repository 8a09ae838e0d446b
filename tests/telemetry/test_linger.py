from __future__ import annotations

import threading
import time

import pytest

from transferlib.telemetry import linger
from transferlib.telemetry.linger import Scrapes, last_moment


@pytest.mark.parametrize(
    ("scraped_at", "first_s", "expected"),
    [
        pytest.param([], 0.0, 100.0, id="never scraped: goes at once"),
        pytest.param([], 12.0, 112.0, id="never scraped: as long as was said"),
        pytest.param([], 999.0, 130.0, id="never more than half a minute"),
        pytest.param([98.0], 0.0, 128.0, id="scraped once: half a minute after that"),
        pytest.param([60.0], 0.0, 90.0, id="scraped once, long ago: nobody comes"),
        pytest.param([88.0, 93.0, 98.0], 0.0, 106.5, id="every 5 s: one and a half times that, and one"),
        pytest.param([92.0, 93.0, 97.0, 98.0], 0.0, 105.0, id="two scrapers: the longest gap counts"),
        pytest.param([10.0, 15.0, 20.0], 0.0, 28.5, id="a scraper that went away is not waited for"),
        pytest.param([0.0, 60.0], 0.0, 90.0, id="a slow one is not waited for longer than half a minute"),
    ],
)
def test_a_job_waits_as_long_as_a_scrape_is_to_be_expected(
    scraped_at: list[float], first_s: float, expected: float
) -> None:
    assert last_moment(scraped_at, 100.0, first_s) == pytest.approx(expected)


def test_a_job_that_nobody_looks_at_ends_at_once() -> None:
    began = time.monotonic()
    Scrapes().wait_for_last(0.0, lambda: False)
    assert time.monotonic() - began < 1.0


def waiting(scrapes: Scrapes, first_s: float = 0.0, *, is_stopped: bool = False) -> threading.Thread:
    thread = threading.Thread(target=scrapes.wait_for_last, args=(first_s, lambda: is_stopped), daemon=True)
    thread.start()
    return thread


def test_a_scrape_that_began_before_the_end_does_not_count_and_one_after_it_does() -> None:
    scrapes = Scrapes()
    began_before = time.monotonic()
    scrapes.note(began_before)
    thread = waiting(scrapes)
    scrapes.note(began_before)
    thread.join(0.3)
    assert thread.is_alive()
    scrapes.note(time.monotonic())
    thread.join(5.0)
    assert not thread.is_alive()


def test_a_job_that_was_stopped_does_not_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert linger.MOST_STOPPED_S < linger.MOST_S
    monkeypatch.setattr(linger, "MOST_STOPPED_S", 0.25)
    scrapes = Scrapes()
    scrapes.note(time.monotonic())
    began = time.monotonic()
    scrapes.wait_for_last(0.0, lambda: True)
    assert 0.25 <= time.monotonic() - began < 5.0
