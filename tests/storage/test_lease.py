"""Who may write a run in a store: by a clock that the test moves, with holders that live, die, and wake up again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from transferlib.errors import RunFolderError
from transferlib.storage.lease import LeaseLostError, RunLease, TrialLease, read_lease
from transferlib.storage.locations import Location, open_location

TTL_S = 15.0
TRIAL = "resnet18-full-s0-c0"


class Clock:
    """Time that passes only where somebody waits for it."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0
        self.meanwhile: Callable[[], object] = lambda: None

    def now(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.meanwhile()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Location:
    return open_location(str(tmp_path))


def lease(store: Location, clock: Clock, *, clock_is_ahead_s: float = 0.0) -> RunLease:
    return RunLease(store, now=lambda: clock.now() + clock_is_ahead_s, wait=clock.wait, ttl_s=TTL_S)


def test_a_released_lease_is_taken_at_once_and_attempts_count_up(store: Location, clock: Clock) -> None:
    began = clock.seconds
    for attempt in (1, 2, 3):
        holder = lease(store, clock)
        holder.take()
        assert holder.attempt == attempt
        holder.release()
    assert clock.seconds == began


def test_a_dead_holder_is_outlived_in_one_ttl(store: Location, clock: Clock) -> None:
    lease(store, clock).take()
    began = clock.seconds
    second = lease(store, clock)
    second.take()
    assert second.attempt == 2
    assert TTL_S <= clock.seconds - began < TTL_S + 2


def test_one_that_died_long_ago_is_not_waited_for(store: Location, clock: Clock) -> None:
    lease(store, clock).take()
    clock.seconds += TTL_S + 1
    began = clock.seconds
    lease(store, clock).take()
    assert clock.seconds == began


def test_a_dead_holder_whose_clock_was_a_day_ahead_costs_one_ttl_too(store: Location, clock: Clock) -> None:
    lease(store, clock, clock_is_ahead_s=86400).take()
    began = clock.seconds
    lease(store, clock).take()
    assert clock.seconds - began < TTL_S + 2


def test_a_living_holder_keeps_it(store: Location, clock: Clock) -> None:
    first = lease(store, clock)
    first.take()
    clock.meanwhile = first.beat
    with pytest.raises(RunFolderError, match=r"which lives.*submit stop"):
        lease(store, clock).take()
    first.check()


def test_a_holder_that_wakes_up_late_writes_nothing_more(store: Location, clock: Clock) -> None:
    first, second = lease(store, clock), lease(store, clock)
    first.take()
    clock.seconds += TTL_S + 1
    second.take()
    for act in (first.check, first.beat, first.release):
        with pytest.raises(LeaseLostError, match="attempt 2"):
            act()
    second.check()


def test_an_older_attempt_does_not_take_it_from_a_newer_one(store: Location, clock: Clock) -> None:
    newer = lease(store, clock)
    newer.take(2)
    newer.release()
    with pytest.raises(LeaseLostError):
        lease(store, clock).take(1)


def test_an_unreadable_lease_is_told_and_not_written_over(store: Location, clock: Clock) -> None:
    store.write("lease.json", b"{")
    with pytest.raises(RunFolderError, match=r"lease\.json cannot be read"):
        lease(store, clock).take()
    assert store.read("lease.json") == b"{"


def test_a_newer_attempt_ends_the_trials_of_the_older_one(store: Location, clock: Clock) -> None:
    first = lease(store, clock)
    first.take()
    trial = TrialLease(store, TRIAL, attempt=1)
    trial.take()
    clock.seconds += TTL_S + 1
    lease(store, clock).take()
    with pytest.raises(LeaseLostError):
        trial.check()
    with pytest.raises(LeaseLostError):
        TrialLease(store, TRIAL, attempt=1).take()
    before = TrialLease(store, TRIAL, attempt=2).take()
    now = read_lease(store, f"trials/{TRIAL}/lease.json")
    assert before is not None
    assert now is not None
    assert [(one.attempt, one.start) for one in (before, now)] == [(1, 1), (2, 2)]
