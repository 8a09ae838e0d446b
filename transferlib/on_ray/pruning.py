"""Drop model files that can no longer be chosen, so that disk does not grow with the learning-rate candidates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from transferlib.errors import TransferlibError
from transferlib.records import FINISHED, TrialKey, TrialResult, TrialSpec
from transferlib.runs import RunFolder

log = logging.getLogger("transferlib.job")


class DropLosers(tune.Callback):
    """When the last candidate of an arm and seed ends, drop the model files of those with a lower score.

    Candidates level in the metric on validation keep theirs until the choice, which looks at log-loss and rate too. One
    that was spared has ended without a file.

    Args:
        run: The run's folder.
        trials: All trials of the plan.
        remove: Removes a file of the run, wherever the run is kept.
    """

    def __init__(self, run: RunFolder, trials: Sequence[TrialSpec], remove: Callable[[Path], None]) -> None:
        self._run = run
        self._trials = trials
        self._remove = remove
        self._dropped: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave nothing of it in the record that Tune writes and nobody reads: a store's connection cannot go there."""
        return (tune.Callback, ())

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Look at every arm and seed that is complete now."""
        self.drop()

    def drop(self) -> None:
        """Drop `best.safetensors` of finished trials that a finished rival of the same arm and seed beats.

        One that cannot be removed now is left for the end of the job, which tries again.
        """
        for trial_id in losers(self._run, self._trials):
            if trial_id not in self._dropped:
                self._dropped.add(trial_id)
                try:
                    self._remove(self._run.trial(trial_id).best)
                except TransferlibError as error:
                    log.warning("The model of %s is not dropped yet: %s", trial_id, error)


def losers(run: RunFolder, trials: Sequence[TrialSpec]) -> list[str]:
    """Return the trials that a rival of the same arm and seed beats, where all of these have ended."""
    groups: dict[TrialKey, list[TrialResult | None]] = {}
    for trial in trials:
        groups.setdefault(replace(trial.key, candidate=0), []).append(run.trial(trial.trial_id).read_result())
    lost = []
    for group in groups.values():
        ended = [result for result in group if result is not None and result.state in FINISHED]
        if len(ended) == len(group):
            done = [result for result in ended if result.state == "done"]
            best = max((result.score for result in done), default=0.0)
            lost += [result.trial_id for result in done if result.score < best]
    return lost
