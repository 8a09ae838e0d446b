"""The trials in their turn, for Ray Tune: an arm's later seeds begin when its rate is decided; no arm waits for others.

What is known of trials stands in the run folder alone, so a job that was killed goes on as if it had not been.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from transferlib.comparison.tuning import Tuning
from transferlib.errors import TransferlibError
from transferlib.on_ray.mirroring import KeptRun
from transferlib.records import FINISHED, TrialResult, TrialSpec
from transferlib.runs import RunFolder

log = logging.getLogger("transferlib.job")

RESULT_WAIT_S = 120.0
"""How long the result of a trial that ended on another node may take to come here; one that takes longer never will."""


class YieldedError(Exception):
    """End Tune's loop, and with it what this job has reserved: Tune keeps a process for the next trial."""


class TrialQueue(Searcher):
    """Hand Tune the next trial that may train, and give those that need no training their result.

    Args:
        run: The run's folder.
        tuning: Of its plan.
        trials: Which to run.
        kept: The run as it is kept.
        must_yield: Says whether another job has its turn, so that no trial is begun now.
    """

    def __init__(
        self,
        run: RunFolder,
        tuning: Tuning,
        trials: Sequence[TrialSpec],
        kept: KeptRun,
        must_yield: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._run = run
        self._tuning = tuning
        self._asked = {trial.trial_id for trial in trials}
        self._kept = kept
        self._must_yield = must_yield
        self._results: dict[str, TrialResult] = {}
        self._begun: dict[str, str] = {}
        """Our trials' ids by Tune's."""
        self._ended_at: dict[str, float] = {}
        """When Tune said that one of our trials had ended; minus infinity: it gave it up."""
        self._is_store_away = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave nothing of it in the record that Tune writes and nobody reads: a store's connection cannot go there."""
        return (Searcher, ())

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: the run folder is the record."""

    def suggest(self, trial_id: str) -> Any:
        """Return what Tune is to run next.

        Args:
            trial_id: Tune's id of it.

        Returns:
            The trial, as its process reads it; None: not now, ask again; FINISHED: none is left, or the run is stopped.

        Raises:
            YieldedError: Another job has its turn, and no trial of this one is left that holds anything.
        """
        if self._run.stop_flag.exists():
            return Searcher.FINISHED
        if self._must_yield():
            if len(self._begun) > len(self._ended_at):
                return None
            raise YieldedError
        results = self._read()
        self._try_to_spare()
        left = [t for t in self._tuning.ready(results) if t.trial_id in self._asked - {*self._begun.values()}]
        if left:
            self._begun[trial_id] = left[0].trial_id
            return {"run": str(self._run.path), "trial": left[0].to_json()}
        return None if self._is_worth_waiting(results) else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note that a trial has ended; how, stands in its folder.

        Args:
            trial_id: Tune's id.
            result: What it said last.
            error: Whether Tune has given it up.
        """
        self._ended_at[self._begun[trial_id]] = -math.inf if error else time.monotonic()

    def spare(self) -> None:
        """Give every trial that needs no training its result; each keeps what it has.

        Raises:
            TransferlibError: One cannot be stored now.
        """
        for result in self._tuning.spared(self._read()):
            self._kept.write(self._run.trial(result.trial_id).result, result.to_json() + "\n")

    def given_up(self) -> list[str]:
        """Return the trials that Tune has given up, by our id."""
        return [trial_id for trial_id, at in self._ended_at.items() if at == -math.inf]

    def waiting(self) -> dict[str, str]:
        """Return the trials that could not begin, with the reason, by our id."""
        waits = self._tuning.waits(self._read())
        return {id_: f"the rate waits for {', '.join(one.trial_id for one in ones)}" for id_, ones in waits.items()}

    def _try_to_spare(self) -> None:
        """Spare what can be spared; where the store is away that waits for the end of the trials."""
        if self._is_store_away:
            return
        try:
            self.spare()
        except TransferlibError as error:
            self._is_store_away = True
            log.warning("Which trials need no training is not stored yet: %s", error)

    def _is_worth_waiting(self, results: dict[str, TrialResult]) -> bool:
        """Return whether a trial waits for results all of which may still come."""
        late = time.monotonic() - RESULT_WAIT_S
        coming = self._asked - {trial_id for trial_id, at in self._ended_at.items() if at < late}
        return any(
            all(one.trial_id in coming for one in ones)
            for trial_id, ones in self._tuning.waits(results).items()
            if trial_id in self._asked
        )

    def _read(self) -> dict[str, TrialResult]:
        """Return the results of trials that are finished; a result that is read once stands."""
        for trial in self._tuning.trials:
            if trial.trial_id not in self._results:
                result = self._run.trial(trial.trial_id).read_result()
                if result is not None and result.state in FINISHED:
                    self._results[trial.trial_id] = result
        return self._results
