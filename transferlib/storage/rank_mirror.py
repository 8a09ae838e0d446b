"""The other ranks' side of a trial in a store: they read what the first rank stored, and leave their log."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from transferlib.errors import RunFolderError, StorageError
from transferlib.runs import RunFolder
from transferlib.storage.background import Repeated, persist
from transferlib.storage.checkpoints import CheckpointCopies
from transferlib.storage.claim import FolderClaim
from transferlib.storage.files import Incoming, Outgoing
from transferlib.storage.layout import RESULT, list_objects, trial_log, trial_prefix, trial_restores
from transferlib.storage.lease import LeaseLostError
from transferlib.storage.locations import Location
from transferlib.storage.trial_mirror import (
    PATIENCE_S,
    STOP_POLL_S,
    pass_stop,
    relay_stop,
    restore_settled,
    settle_stop,
)

logger = logging.getLogger("transferlib.storage")

FETCH_WAIT_S = 1800.0


class RankMirror:
    """Bring a trial to a node for a rank other than the first. Enter it once the first rank has entered its own.

    Where the first rank is on the same node, the files are there already. Leaving sends this rank's log, and how the
    trial failed where this rank recorded that and no other did.

    Args:
        location: Of the run in the store.
        run: The run's folder on this node.
        trial_id: Which trial.
        rank: Of this process, from 1.
        patience_s: How long leaving tries again.
    """

    def __init__(
        self, location: Location, run: RunFolder, trial_id: str, *, rank: int, patience_s: float = PATIENCE_S
    ) -> None:
        self._store = location
        self._run = run
        self._trial_id = trial_id
        self._rank = rank
        self._patience_s = patience_s
        self._folder = run.trial(trial_id)
        self._outgoing = Outgoing(location, run.path)
        self._threads = [
            Repeated("Passing STOP on", STOP_POLL_S, self._pass_stop, _never, max_pause_s=STOP_POLL_S),
            Repeated("Looking for STOP", STOP_POLL_S, self._watch, _never, max_pause_s=STOP_POLL_S),
        ]

    @property
    def stop_flag(self) -> Path:
        """Return the file that tells this process to stop: for its `Worker`."""
        return self._folder.path / f".stop-rank{self._rank}"

    def __enter__(self) -> Self:
        fetching = FolderClaim(self._folder.path, "fetch")
        with fetching.held(FETCH_WAIT_S) as is_mine:
            if not is_mine:
                raise RunFolderError(
                    f"{self._folder.path} was being fetched by another rank for {FETCH_WAIT_S:.0f} s. "
                    "End that process, or let the trial start again."
                )
            listing = list_objects(self._store)
            restore_settled(self._store, self._run, listing)
            with FolderClaim(self._folder.path).held() as is_first_elsewhere:
                if is_first_elsewhere:
                    infos = trial_restores(listing, self._trial_id)
                    Incoming(self._store, self._run.path).pull(infos, listing)
                    CheckpointCopies(self._store, self._run.path, self._trial_id, _read_only).pull(listing)
            self._outgoing.take_as_sent([self._result])
        self.stop_flag.unlink(missing_ok=True)
        settle_stop(self._store, self._run)
        self._watch()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.stop()
        self.stop_flag.unlink(missing_ok=True)
        try:
            persist(f"What rank {self._rank} of {self._trial_id} wrote", self._push, self._patience_s, time.sleep)
        except StorageError as problem:
            if error is None:
                raise
            logger.error("%s", problem)
            error.add_note(str(problem))

    @property
    def _result(self) -> str:
        return f"{trial_prefix(self._trial_id)}/{RESULT}"

    def _pass_stop(self) -> None:
        pass_stop(self._run, self.stop_flag)

    def _watch(self) -> None:
        relay_stop(self._store, self._run, self.stop_flag)

    def _push(self) -> None:
        self._outgoing.push([trial_log(self._trial_id, self._rank)])
        with FolderClaim(self._folder.path).held() as is_first_elsewhere:
            changed = self._outgoing.changed([self._result]) if is_first_elsewhere else []
            if changed and not self._store.exists(self._result):
                self._outgoing.push(changed)


def _read_only() -> None:
    raise LeaseLostError("Only the first rank writes checkpoints.")


def _never(error: LeaseLostError) -> None:
    raise AssertionError(error)
