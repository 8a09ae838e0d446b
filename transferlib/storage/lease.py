"""Who may write a run in a store that cannot lock: a lease with a heartbeat and an attempt number.

One driver an attempt holds `lease.json` and shows every few seconds that it lives. A later attempt takes it over once
that stops; the older one, should it wake up, reads who holds it before it writes, and writes nothing more. A trial has
a lease of its own without a heartbeat: Ray alone decides that it is started again, so the newest start always holds it.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from transferlib.errors import ObjectNotFoundError, RunFolderError
from transferlib.records import JsonRecord
from transferlib.storage.layout import LEASE, trial_prefix
from transferlib.storage.locations import Location

TTL_S = 15.0
"""A lease not renewed for this long is anyone's."""
BEAT_EVERY_S = 3.0


class LeaseLostError(RunFolderError):
    """Report that a newer process writes this run or trial now."""


@dataclass(frozen=True)
class Lease(JsonRecord):
    """Say who writes."""

    attempt: int
    """Of the run, from 1."""
    holder: str
    """One process: host, process id and a random part."""
    start: int = 1
    """Of a trial, from 1; a newer one is the one that counts."""
    beat_at: float = 0.0
    """Unix time, by the holder's clock, of the last sign of life."""
    is_released: bool = False


def new_holder() -> str:
    """Return a name for this process that no other one has."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def read_lease(store: Location, name: str = LEASE) -> Lease | None:
    """Return who holds a lease; None: nobody ever did.

    Raises:
        RunFolderError: It cannot be read.
    """
    try:
        return Lease.from_json(store.read(name).decode())
    except ObjectNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise RunFolderError(
            f"{store.uri_of(name)} cannot be read ({error}). If no job writes this run, remove that object."
        ) from None


class RunLease:
    """Hold a run's lease, as its driver.

    Args:
        store: Of the run.
        now: Unix time, s.
        wait: Waits for some seconds.
        ttl_s: How long a lease lasts without a sign of life.
    """

    def __init__(
        self,
        store: Location,
        *,
        now: Callable[[], float] = time.time,
        wait: Callable[[float], None] = time.sleep,
        ttl_s: float = TTL_S,
    ) -> None:
        self._store = store
        self._now = now
        self._wait = wait
        self._ttl_s = ttl_s
        self._mine = Lease(attempt=0, holder=new_holder())

    @property
    def attempt(self) -> int:
        """Return the attempt that this process is; 0 before it holds the lease."""
        return self._mine.attempt

    def take(self, attempt: int | None = None) -> None:
        """Take the lease, after a wait of up to `ttl_s` where its holder has died without releasing it.

        Args:
            attempt: Which this is; None: one more than the one before.

        Raises:
            LeaseLostError: A newer attempt has it.
            RunFolderError: Its holder lives, or another process took it in the same moment.
        """
        before = self._outlive(read_lease(self._store))
        number = attempt if attempt is not None else 1 + (0 if before is None else before.attempt)
        if before is not None and before.attempt > number:
            raise LeaseLostError(self._lost(before, number))
        self._mine = replace(self._mine, attempt=number)
        self._write(is_released=False)
        self.check()

    def _outlive(self, lease: Lease | None) -> Lease | None:
        """Return the lease once its holder shows no life: by its own clock, or because nothing moves while we look.

        Clocks of nodes differ. One that is behind ours makes a lease look old, and its holder obeys; one that is ahead
        makes it look young for longer, so what counts then is that it does not change.
        """
        since = self._now()
        while lease is not None and not lease.is_released and self._now() - lease.beat_at < self._ttl_s:
            if self._now() - since >= self._ttl_s:
                break
            self._wait(min(1.0, self._ttl_s / 4))
            seen = read_lease(self._store)
            if seen is not None and not seen.is_released and seen != lease:
                raise RunFolderError(
                    f"{self._store.uri} is being written by attempt {seen.attempt} ({seen.holder}), which lives. "
                    "Wait for it, or stop it first: submit stop."
                )
            lease = seen
        return lease

    def check(self) -> None:
        """Return if this process still holds the lease.

        Raises:
            LeaseLostError: It does not.
        """
        seen = read_lease(self._store)
        if seen is None or seen.holder != self._mine.holder:
            raise LeaseLostError(self._lost(seen, self._mine.attempt))

    def beat(self) -> None:
        """Show that the holder lives.

        Raises:
            LeaseLostError: It is the holder no longer.
        """
        self.check()
        self._write(is_released=False)

    def release(self) -> None:
        """Give the lease back, so that the next attempt need not wait.

        Raises:
            LeaseLostError: It was lost before.
        """
        self.check()
        self._write(is_released=True)

    def _write(self, *, is_released: bool) -> None:
        self._mine = replace(self._mine, beat_at=self._now(), is_released=is_released)
        self._store.write(LEASE, (self._mine.to_json() + "\n").encode())

    def _lost(self, by: Lease | None, attempt: int) -> str:
        return lost(self._store, f"attempt {attempt}", "nobody" if by is None else f"attempt {by.attempt}", by)


class TrialLease:
    """Hold a trial's lease, as the process that trains it.

    Args:
        store: Of the run.
        trial_id: Which trial.
        attempt: Of the run, which started this process.
    """

    def __init__(self, store: Location, trial_id: str, attempt: int) -> None:
        self._store = store
        self._name = f"{trial_prefix(trial_id)}/{LEASE}"
        self._mine = Lease(attempt=attempt, holder=new_holder())

    @property
    def start(self) -> int:
        """Return which start of the trial this is, over all attempts."""
        return self._mine.start

    def take(self) -> Lease | None:
        """Take the lease from whoever has it; return the one before.

        Raises:
            LeaseLostError: A newer attempt writes this run.
        """
        self._check_run()
        before = read_lease(self._store, self._name)
        if before is not None and before.attempt > self._mine.attempt:
            raise LeaseLostError(self._lost(before))
        self._mine = replace(self._mine, start=1 if before is None else before.start + 1)
        self._store.write(self._name, (self._mine.to_json() + "\n").encode())
        return before

    def check(self) -> None:
        """Return if this process may still write.

        Raises:
            LeaseLostError: The run has a newer attempt, or the trial a newer start.
        """
        self._check_run()
        seen = read_lease(self._store, self._name)
        if seen is None or seen.holder != self._mine.holder:
            raise LeaseLostError(self._lost(seen))

    def _check_run(self) -> None:
        run = read_lease(self._store)
        if run is not None and run.attempt > self._mine.attempt:
            raise LeaseLostError(self._lost(run))

    def _lost(self, by: Lease | None) -> str:
        who = "nobody" if by is None else f"attempt {by.attempt}, start {by.start}"
        return lost(self._store, f"attempt {self._mine.attempt}, start {self._mine.start} of a trial", who, by)


def lost(store: Location, what: str, who: str, by: Lease | None) -> str:
    """Return the sentence for a process that found another in its place."""
    return (
        f"{store.uri}: {what} writes no more, since {who} ({'-' if by is None else by.holder}) holds the lease now. "
        "Nothing needs to be done: the newer one goes on from what was stored."
    )
