"""Drop model files that can no longer be chosen, so that disk does not grow with the learning-rate candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray import tune

from transferlib.records import FINISHED, TrialResult, TrialSpec
from transferlib.runs import RunFolder


class DropLosers(tune.Callback):
    """When the last candidate of an arm and seed ends, drop the model files of those with a lower accuracy.

    Candidates level in validation accuracy keep theirs until the choice, which looks at log-loss and rate too.

    Args:
        run: The run's folder.
        trials: All trials of the plan.
    """

    def __init__(self, run: RunFolder, trials: Sequence[TrialSpec]) -> None:
        self._run = run
        self._trials = trials

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Look at every arm and seed that is complete now."""
        drop_losers(self._run, self._trials)


def drop_losers(run: RunFolder, trials: Sequence[TrialSpec]) -> None:
    """Drop `best.safetensors` of finished trials that a finished rival of the same arm and seed beats in accuracy."""
    groups: dict[tuple[str, int], list[TrialResult | None]] = {}
    for trial in trials:
        groups.setdefault((trial.arm, trial.seed), []).append(run.trial(trial.trial_id).read_result())
    for group in groups.values():
        ended = [result for result in group if result is not None and result.state in FINISHED]
        if len(ended) < len(group):
            continue
        done = [result for result in ended if result.state == "done"]
        best = max((result.val_accuracy for result in done), default=0.0)
        for result in done:
            if result.val_accuracy < best:
                run.trial(result.trial_id).best.unlink(missing_ok=True)
