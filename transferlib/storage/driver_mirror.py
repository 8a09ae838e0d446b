"""The driver's side of a run in a store: it holds the lease, publishes the run, and sees what trials elsewhere do."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from transferlib.errors import RunFolderError, StorageError
from transferlib.runs import RunFolder, link_or_copy, write_atomic
from transferlib.storage.background import Repeated, persist
from transferlib.storage.claim import FolderClaim
from transferlib.storage.files import Incoming, Outgoing, fetch
from transferlib.storage.layout import (
    LEASE,
    SPEC,
    STATUS,
    STOP,
    Listing,
    driver_files,
    driver_pulls,
    driver_restores,
    list_objects,
    trial_prefix,
)
from transferlib.storage.lease import BEAT_EVERY_S, LeaseLostError, RunLease, read_lease
from transferlib.storage.locations import Location, ObjectInfo
from transferlib.storage.trial_mirror import PATIENCE_S, PUSH_EVERY_S, STOP_POLL_S, TrialMirror

logger = logging.getLogger("transferlib.storage")


class DriverMirror:
    """Keep a run's folder on the driver's node and in the store alike, while this attempt holds the run's lease.

    Enter it inside `run.locked()`. The job writes its folder as ever and finds there what trials on other nodes wrote.

    Args:
        location: Of the run in the store.
        run: The run's folder on this node.
        attempt: Which this is; None: one more than the one before.
        lease: Of the run; None: a new one.
        patience_s: How long `flush` tries again.
        sync_every_s: Pause between two looks at what changed.
    """

    def __init__(
        self,
        location: Location,
        run: RunFolder,
        *,
        attempt: int | None = None,
        lease: RunLease | None = None,
        patience_s: float = PATIENCE_S,
        sync_every_s: float = PUSH_EVERY_S,
    ) -> None:
        self._store = location
        self._run = run
        self._wanted_attempt = attempt
        self._lease = RunLease(location) if lease is None else lease
        self._patience_s = patience_s
        self._outgoing = Outgoing(location, run.path)
        self._incoming = Incoming(location, run.path)
        self._sent_status: bytes | None = None
        self._lost: LeaseLostError | None = None
        self._syncing = threading.Lock()
        self._threads = [
            Repeated("Renewing the lease", BEAT_EVERY_S, self._lease.beat, self._give_up, max_pause_s=BEAT_EVERY_S),
            Repeated("Looking for STOP", STOP_POLL_S, self._pass_stop, self._give_up, max_pause_s=STOP_POLL_S),
            Repeated("Sending the run's files", sync_every_s, self._push, self._give_up),
            Repeated("Fetching the trials' files", sync_every_s, self.pull, self._give_up),
        ]

    @property
    def attempt(self) -> int:
        """Return which attempt of the run this is: for its trials' mirrors."""
        return self._lease.attempt

    def __enter__(self) -> Self:
        listing = list_objects(self._store)
        if SPEC not in listing:
            raise RunFolderError(
                f"{self._store.uri} holds no run: {SPEC}, written last, is not there. Submit it again."
            )
        self._lease.take(self._wanted_attempt)
        try:
            self._restore()
            self._settle_stop()
        except BaseException:
            self._lease.release()
            raise
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The lease is kept alive until everything is stored.
        heart, *others = self._threads
        for thread in others:
            thread.stop()
        try:
            self._adopt()
            self.flush()
            heart.stop()
            self._lease.release()
        except (StorageError, LeaseLostError) as problem:
            if error is None:
                raise
            logger.error("%s", problem)
            error.add_note(str(problem))
        finally:
            heart.stop()

    def pull(self) -> None:
        """Fetch what trials on other nodes have written, now: before the job reads their results.

        One listing of the run and one request for each file that changed. A trial that a process of this node writes
        is left alone, and so is one that this node has newer than the store.

        Raises:
            LeaseLostError: Another attempt writes this run now.
            StorageError: The store cannot be used.
        """
        with self._syncing:
            self._refuse_if_lost()
            listing = list_objects(self._store)
            for trial_id, infos in driver_pulls(listing).items():
                self._pull_trial(trial_id, infos, listing)

    def flush(self) -> None:
        """Send everything that is not in the store yet, `status.json` last, and wait for it.

        Raises:
            LeaseLostError: Another attempt writes this run now.
            StorageError: Something could not be stored, after `patience_s` of trying.
        """
        persist(f"What the job of {self._run.run_id} wrote", self._push, self._patience_s, time.sleep)

    def has(self, path: Path) -> bool:
        """Say whether a file of the run is in the store, and is not empty.

        Args:
            path: Below the run's folder.

        Raises:
            StorageError: The store cannot be used.
        """
        info = self._store.info(path.relative_to(self._run.path).as_posix())
        return info is not None and info.size > 0

    def remove(self, path: Path) -> None:
        """Remove a file of the run, here and in the store.

        Args:
            path: Below the run's folder; it need not be there.

        Raises:
            LeaseLostError: Another attempt writes this run now.
            StorageError: The store cannot be used; the file is gone here.
        """
        self._refuse_if_lost()
        path.unlink(missing_ok=True)
        self._store.delete(path.relative_to(self._run.path).as_posix())

    def copy(self, source: Path, target: Path) -> None:
        """Keep a file of the run under a second name, here and in the store.

        Args:
            source: Below the run's folder; fetched where another node wrote it.
            target: Below the run's folder; its folder need not be there.

        Raises:
            LeaseLostError: Another attempt writes this run now.
            StorageError: The store cannot be used, or lacks the file.
        """
        self._refuse_if_lost()
        root = self._run.path
        if not source.exists():
            fetch(self._store, source.relative_to(root).as_posix(), root)
        link_or_copy(source, target)
        self._lease.check()
        self._store.upload(target.relative_to(root).as_posix(), target)

    def write(self, path: Path, text: str) -> None:
        """Write a small file of a trial that no process trains, in the store and then here: what is here is stored.

        Args:
            path: Below the run's folder.
            text: Its content.

        Raises:
            LeaseLostError: Another attempt writes this run now.
            StorageError: The store cannot be used; the file is not here either.
        """
        self._refuse_if_lost()
        self._lease.check()
        self._store.write(path.relative_to(self._run.path).as_posix(), text.encode())
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)

    def _restore(self) -> None:
        (self._run.path / "trials").mkdir(parents=True, exist_ok=True)
        self._run.log.mkdir(exist_ok=True)
        listing = list_objects(self._store)
        infos = driver_restores(listing)
        self._incoming.pull(infos, listing)
        self._outgoing.take_as_sent(info.name for info in infos)
        self.pull()

    def _pull_trial(self, trial_id: str, infos: list[ObjectInfo], listing: Listing) -> None:
        claim = FolderClaim(self._run.trial(trial_id).path)
        with claim.held() as is_nobodys:
            if is_nobodys and not self._is_newer_here(claim, trial_id):
                self._incoming.pull(infos, listing)

    def _is_newer_here(self, claim: FolderClaim, trial_id: str) -> bool:
        """Say whether the last process that wrote a trial was on this node and was killed before it stored all."""
        note = claim.note()
        if note is None or note.is_stored:
            return False
        lease = read_lease(self._store, f"{trial_prefix(trial_id)}/{LEASE}")
        return lease is not None and (lease.attempt, lease.start) == (note.attempt, note.start)

    def _adopt(self) -> None:
        """Store what trials that were killed on this node, and not started again, have left here."""
        for path in sorted((self._run.path / "trials").iterdir()):
            claim = FolderClaim(path)
            with claim.held() as is_nobodys:
                is_left = is_nobodys and self._is_newer_here(claim, path.name)
            if is_left:
                with TrialMirror(self._store, self._run, path.name, attempt=self.attempt, patience_s=self._patience_s):
                    logger.info("%s: stored what its last process left.", path.name)

    def _push(self) -> None:
        self._refuse_if_lost()
        # Read before the other files are looked at: what it tells of is among them then.
        status = self._run.status.read_bytes() if self._run.status.exists() else None
        names = [name for name in driver_files(self._run.path) if name != STATUS]
        if self._outgoing.changed(names):
            self._lease.check()
            self._outgoing.push(names)
        if status is not None and status != self._sent_status:
            self._lease.check()
            self._store.write(STATUS, status)
            self._sent_status = status

    def _settle_stop(self) -> None:
        """Begin as the store says: a request to stop that an earlier attempt left here is over."""
        if self._store.exists(STOP):
            self._run.stop_flag.touch()
        else:
            self._run.stop_flag.unlink(missing_ok=True)

    def _pass_stop(self) -> None:
        """Bring a request to stop from the store here (the client's), or from here there (a signal's)."""
        self._refuse_if_lost()
        is_here, is_there = self._run.stop_flag.exists(), self._store.exists(STOP)
        if is_there and not is_here:
            self._run.stop_flag.touch()
        if is_here and not is_there:
            self._lease.check()
            self._store.write(STOP, b"")

    def _refuse_if_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _give_up(self, error: LeaseLostError) -> None:
        is_first = self._lost is None
        self._lost = error
        if is_first:
            logger.warning("%s", error)
            self._run.stop_flag.touch()
