"""The trial's side of a run in a store: what it goes on from comes here, what it makes goes there beside training."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from transferlib.errors import StorageError
from transferlib.records import FINISHED
from transferlib.runs import RunFolder
from transferlib.storage.background import Repeated, persist
from transferlib.storage.checkpoints import CheckpointCopies
from transferlib.storage.claim import FolderClaim
from transferlib.storage.files import Incoming, Outgoing
from transferlib.storage.layout import (
    RESULT,
    SETTLED_FILES,
    STOP,
    Listing,
    list_objects,
    trial_files,
    trial_log,
    trial_prefix,
    trial_restores,
)
from transferlib.storage.lease import Lease, LeaseLostError, TrialLease
from transferlib.storage.locations import Location

logger = logging.getLogger("transferlib.storage")

PUSH_EVERY_S = 1.0
LOG_EVERY_S = 10.0
STOP_POLL_S = 0.5
PATIENCE_S = 120.0
"""How long the end of a trial waits for a store that fails."""
CLAIM_WAIT_S = 60.0
_CHECK_EVERY_S = 5.0
_CHECK_BEFORE_SMALL_S = 2.0


class TrialMirror:
    """Keep one trial's folder on this node and in the store alike, for the process that trains it (the first rank).

    Entering takes the trial over from whoever had it and brings here what it goes on from: whole checkpoints only.
    Training writes its folder as ever; threads send what changed, and nothing they meet stops or slows training.
    Leaving sends the rest, and raises where that cannot be had. The model of a finished trial then leaves this node.

    Args:
        location: Of the run in the store.
        run: The run's folder on this node; other trials and the driver may use it too.
        trial_id: Which trial.
        attempt: The driver's.
        patience_s: How long `flush` tries again.
        push_every_s: Pause between two looks at what changed.
    """

    def __init__(
        self,
        location: Location,
        run: RunFolder,
        trial_id: str,
        *,
        attempt: int,
        patience_s: float = PATIENCE_S,
        push_every_s: float = PUSH_EVERY_S,
    ) -> None:
        self._store = location
        self._run = run
        self._trial_id = trial_id
        self._attempt = attempt
        self._patience_s = patience_s
        self._folder = run.trial(trial_id)
        self._lease = TrialLease(location, trial_id, attempt)
        self._claim = FolderClaim(self._folder.path)
        self._outgoing = Outgoing(location, run.path)
        self._checkpoints = CheckpointCopies(location, run.path, trial_id, self._check)
        self._checked_at = float("-inf")
        self._log_sent_at = float("-inf")
        self._lost: LeaseLostError | None = None
        self._sending = threading.Lock()
        self._open = ExitStack()
        self._threads = [
            Repeated("Passing STOP on", STOP_POLL_S, self._pass_stop, self._give_up, max_pause_s=STOP_POLL_S),
            Repeated("Looking for STOP", STOP_POLL_S, self._watch, self._give_up, max_pause_s=STOP_POLL_S),
            Repeated("Sending progress", push_every_s, self._push_small, self._give_up),
            Repeated("Sending checkpoints and results", push_every_s, self._push_rest, self._give_up),
        ]

    @property
    def stop_flag(self) -> Path:
        """Return the file that tells this process, and no other on its node, to stop: for its `Worker`.

        It appears when the run's STOP does, here or in the store, and when a newer start has taken the trial over.
        """
        return self._folder.path / f".stop-{self._attempt}-{self._lease.start}"

    def __enter__(self) -> Self:
        before = self._lease.take()
        with ExitStack() as stack:
            if not stack.enter_context(self._claim.held(CLAIM_WAIT_S)):
                raise self._claim.busy(CLAIM_WAIT_S)
            self._restore(before)
            for flag in self._folder.path.glob(".stop-*"):
                flag.unlink(missing_ok=True)
            settle_stop(self._store, self._run)
            self._watch()
            self._open = stack.pop_all()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.stop()
        try:
            self.flush()
            self._claim.write_note(self._attempt, self._lease.start, is_stored=True)
            if self._is_finished():
                self._folder.best.unlink(missing_ok=True)  # `_restore` fetches it again, for the test set
        except (StorageError, LeaseLostError) as problem:
            if error is None:
                raise
            logger.error("%s", problem)
            error.add_note(str(problem))
        finally:
            self.stop_flag.unlink(missing_ok=True)
            self._open.close()

    def flush(self) -> None:
        """Send everything that is not in the store yet, and wait for it.

        Raises:
            LeaseLostError: A newer start has taken the trial over; what is here is not sent.
            StorageError: Something could not be stored, after `patience_s` of trying.
        """
        persist(f"What trial {self._trial_id} wrote", self._push_all, self._patience_s, time.sleep)

    def _restore(self, before: Lease | None) -> None:
        """Bring the trial here. Where this node had it last, its own files are the newer ones."""
        note = self._claim.note()
        was_here_last = is_all_stored = False
        if before is not None and note is not None:
            was_here_last = (before.attempt, before.start) == (note.attempt, note.start)
            is_all_stored = was_here_last and note.is_stored
        self._claim.write_note(self._attempt, self._lease.start, is_stored=False)
        listing = list_objects(self._store)
        restore_settled(self._store, self._run, listing)
        infos = trial_restores(listing, self._trial_id)
        if was_here_last:
            missing = [info for info in infos if not (self._run.path / info.name).exists()]
            fetched = Incoming(self._store, self._run.path).pull(missing, listing)
            self._outgoing.take_as_sent([info.name for info in infos] if is_all_stored else fetched)
        else:
            Incoming(self._store, self._run.path).pull(infos, listing)
            self._outgoing.take_as_sent(info.name for info in infos)
        self._checkpoints.pull(listing)

    def _check(self, max_age_s: float = 0.0) -> None:
        """Return if this process may write.

        Args:
            max_age_s: How long ago an answer may be.

        Raises:
            LeaseLostError: It may not.
        """
        if self._lost is not None:
            raise self._lost
        if time.monotonic() - self._checked_at > max_age_s:
            self._lease.check()
            self._checked_at = time.monotonic()

    def _give_up(self, error: LeaseLostError) -> None:
        self._lost = error
        logger.warning("%s", error)
        self.stop_flag.touch()

    def _pass_stop(self) -> None:
        pass_stop(self._run, self.stop_flag)

    def _watch(self) -> None:
        relay_stop(self._store, self._run, self.stop_flag)
        self._check(_CHECK_EVERY_S)

    def _push_small(self) -> None:
        names = [self._name("progress.json"), self._name("metrics.csv")]
        if time.monotonic() - self._log_sent_at >= LOG_EVERY_S:
            self._log_sent_at = time.monotonic()
            names.append(trial_log(self._trial_id))
        if self._outgoing.changed(names):
            self._check(_CHECK_BEFORE_SMALL_S)
            self._outgoing.push(names)

    def _push_rest(self) -> None:
        """Send checkpoints, then what the trial leaves; the result last, and its checkpoints go once it is there."""
        with self._sending:
            # Asked before the other files are looked at: those that a result vouches for are there then.
            result = self._outgoing.changed([self._name(RESULT)])
            if self._checkpoints.is_due():
                self._checkpoints.push()
            names = [name for name in trial_files(self._run.path, self._trial_id) if name != self._name(RESULT)]
            if result or self._outgoing.changed([name for name in names if not self._is_small(name)]):
                self._check()
                self._outgoing.push(names)
            if result:
                self._check()
                self._outgoing.push(result)
            if self._is_finished() and not self._outgoing.changed([self._name(RESULT)]):
                self._checkpoints.drop()

    def _push_all(self) -> None:
        self._push_rest()
        self._log_sent_at = float("-inf")
        self._push_small()

    def _is_finished(self) -> bool:
        if any(self._folder.checkpoints.glob("e*")):
            return False
        result = self._folder.read_result()
        return result is not None and result.state in FINISHED

    def _is_small(self, name: str) -> bool:
        return name in (self._name("progress.json"), self._name("metrics.csv"), trial_log(self._trial_id))

    def _name(self, file: str) -> str:
        return f"{trial_prefix(self._trial_id)}/{file}"


def restore_settled(store: Location, run: RunFolder, listing: Listing) -> None:
    """Fetch what a trial reads of its run, unless the driver is on this node: then it is here, and newer.

    Args:
        store: Of the run.
        run: Its folder on this node.
        listing: Of the run.
    """
    run.log.mkdir(parents=True, exist_ok=True)
    if not run.is_locked():
        Incoming(store, run.path).pull([listing[name] for name in SETTLED_FILES if name in listing], listing)


def settle_stop(store: Location, run: RunFolder) -> None:
    """Remove a request to stop that an earlier attempt left on this node; a driver on this node sees to its own."""
    if not run.is_locked() and not store.exists(STOP):
        run.stop_flag.unlink(missing_ok=True)


def relay_stop(store: Location, run: RunFolder, flag: Path) -> None:
    """Set a process's own flag where the run is asked to stop, on this node or in the store."""
    if flag.exists():
        return
    if not run.stop_flag.exists() and store.exists(STOP):
        run.stop_flag.touch()
    pass_stop(run, flag)


def pass_stop(run: RunFolder, flag: Path) -> None:
    """Set a process's own flag where the run is asked to stop on this node: no slow store holds that up."""
    if run.stop_flag.exists():
        flag.touch()
