"""Which trials of a comparison are trained: the first seeds at every rate, the others at the one that was best there.

All is decided from results alone, so that a job that was killed decides the same again, and every arm gets the same
number of trainings. Standard library only: the plan counts by it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from transferlib.records import FINISHED, TrialKey, TrialResult, TrialSpec
from transferlib.words import form

Fate = Literal["train", "wait", "spare"]
"""train: now, or it was; wait: its arm's rate is not decided yet; spare: another rate was better."""
DIGITS = 9
"""To which means are compared: the same hits in another order are level."""


@dataclass(frozen=True)
class Tuning:
    """Know of each trial of a plan whether it is trained.

    Those of the first seeds are, at every rate. When all of these of an arm have ended, its later seeds go on with one
    rate: the one that failed on the fewest first seeds, then with the best mean over them of the metric on validation,
    then of log-loss, then the smaller one. Where all failed, nothing is known: later seeds are trained at every rate.
    """

    trials: tuple[TrialSpec, ...]
    """All of the plan, in its order."""
    num_seeds: int | None = None
    """How many seeds, from the first, are trained at every rate; None: all of them."""

    @property
    def most_side_by_side(self) -> int:
        """Return how many trials may train at the same time, where there is room for all."""
        return sum(max(len(arm.first), len({trial.seed for trial in arm.later})) for arm in self._arms())

    def fates(self, results: Mapping[str, TrialResult]) -> dict[str, Fate]:
        """Return what is to become of each trial, by its id.

        Args:
            results: How trials ended, by trial id.
        """
        fates: dict[str, Fate] = {trial.trial_id: "train" for trial in self.trials}
        for arm in self._arms():
            for trial in arm.later:
                if not arm.is_tuned(results):
                    fates[trial.trial_id] = "wait"
                elif trial.candidate not in arm.candidates(results):
                    fates[trial.trial_id] = "spare"
        return fates

    def ready(self, results: Mapping[str, TrialResult]) -> list[TrialSpec]:
        """Return the unfinished trials that may train now, in the plan's order: one with a result to come among them.

        Args:
            results: How trials ended, by trial id.
        """
        fates = self.fates(results)
        return [t for t in self.trials if fates[t.trial_id] == "train" and not _is_finished(t, results)]

    def waits(self, results: Mapping[str, TrialResult]) -> dict[str, list[TrialSpec]]:
        """Return the trials that may not train yet, in the plan's order: by id, the unfinished trials they wait for.

        Args:
            results: How trials ended, by trial id.
        """
        fates = self.fates(results)
        return {
            trial.trial_id: [one for one in arm.first if not _is_finished(one, results)]
            for arm in self._arms()
            for trial in arm.later
            if fates[trial.trial_id] == "wait"
        }

    def spared(self, results: Mapping[str, TrialResult]) -> list[TrialResult]:
        """Return a result for each trial that needs no training and has none yet: without figures, with the reason.

        Args:
            results: How trials ended, by trial id.
        """
        fates = self.fates(results)
        return [
            TrialResult(trial.key, trial.lr, "spared", arm.reason(results))
            for arm in self._arms()
            for trial in arm.later
            if fates[trial.trial_id] == "spare" and not _is_finished(trial, results)
        ]

    def expected(self, results: Mapping[str, TrialResult]) -> tuple[TrialSpec, ...]:
        """Return the trials that are trained, as far as is known: of a seed whose rate is not decided, any one.

        Args:
            results: How trials ended, by trial id.
        """
        fates = self.fates(results)
        expected: dict[TrialKey, TrialSpec] = {}
        for trial in self.trials:
            if fates[trial.trial_id] != "spare":
                stand_in = replace(trial.key, candidate=0) if fates[trial.trial_id] == "wait" else trial.key
                expected.setdefault(stand_in, trial)
        return tuple(expected.values())

    def _arms(self) -> list[_ArmTrials]:
        """Return the trials by arm and fold."""
        seeds = list(dict.fromkeys(trial.seed for trial in self.trials))[: self.num_seeds]
        groups: dict[TrialKey, list[TrialSpec]] = {}
        for trial in self.trials:
            groups.setdefault(replace(trial.key, seed=0, candidate=0), []).append(trial)
        arms = []
        for group in groups.values():
            has_rates = len({trial.candidate for trial in group}) > 1
            later = tuple(trial for trial in group if has_rates and trial.seed not in seeds)
            arms.append(_ArmTrials(tuple(trial for trial in group if trial not in later), later))
        return arms


@dataclass(frozen=True)
class _ArmTrials:
    """Hold the trials of one arm."""

    first: tuple[TrialSpec, ...]
    """Trained in any case."""
    later: tuple[TrialSpec, ...]
    """Of later seeds."""

    def is_tuned(self, results: Mapping[str, TrialResult]) -> bool:
        """Return whether all that the rate is decided on has ended."""
        return all(_is_finished(trial, results) for trial in self.first)

    def candidates(self, results: Mapping[str, TrialResult]) -> list[int]:
        """Return what later seeds are trained at, once the arm is tuned: one, or all where every first trial failed."""
        by_candidate: dict[int, list[TrialResult]] = {}
        for trial in self.first:
            by_candidate.setdefault(trial.candidate, []).append(results[trial.trial_id])
        if all(result.state == "failed" for of_candidate in by_candidate.values() for result in of_candidate):
            return list(by_candidate)
        return [min(by_candidate, key=lambda candidate: _order(by_candidate[candidate]))]

    def reason(self, results: Mapping[str, TrialResult]) -> str:
        """Return why the other rates are spared."""
        (best,) = self.candidates(results)
        lr = next(trial.lr for trial in self.first if trial.candidate == best)
        seeds = list(dict.fromkeys(str(trial.seed) for trial in self.first))
        return f"rate {lr:.3g} was better on {form(len(seeds), 'seed')} {' and '.join(seeds)}"


def _is_finished(trial: TrialSpec, results: Mapping[str, TrialResult]) -> bool:
    result = results.get(trial.trial_id)
    return result is not None and result.state in FINISHED


def _order(results: Sequence[TrialResult]) -> tuple[int, float, float, float]:
    """Return what one rate's results on the first seeds are compared by; lower is better."""
    done = [result for result in results if result.state == "done"]
    if not done:
        return len(results), 0.0, 0.0, results[0].lr
    score = statistics.fmean(result.score for result in done)
    val_loss = statistics.fmean(result.val_loss for result in done)
    return len(results) - len(done), round(-score, DIGITS), round(val_loss, DIGITS), results[0].lr
