"""What each arm reached: the chosen trials' metrics over seeds, and what training them took."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from transferlib.comparison.choose import Choice, ChosenTrial
from transferlib.comparison.results import RunResults
from transferlib.evaluation.metrics import METRIC_NAMES, Metrics
from transferlib.records import TrialResult

RANKED_BY = "mean over seeds of validation accuracy, then of validation log-loss"


@dataclass(frozen=True)
class Spread:
    """Hold one metric over seeds."""

    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float | None:
        """Return the mean over seeds; None without any."""
        return statistics.fmean(self.by_seed.values()) if self.by_seed else None

    @property
    def std(self) -> float | None:
        """Return the standard deviation over seeds with n - 1 in the denominator; None with fewer than two."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    def to_plain(self) -> dict[str, Any]:
        """Return `mean`, `std` and `by_seed` for JSON."""
        return {
            "mean": self.mean,
            "std": self.std,
            "by_seed": {str(seed): value for seed, value in self.by_seed.items()},
        }

    @classmethod
    def of(cls, metrics: Mapping[int, Metrics], name: str) -> Self | None:
        """Return a metric's spread; None where the metric is not defined (top-5 of few classes)."""
        values = {seed: found.value(name) for seed, found in sorted(metrics.items())}
        if values and all(value is None for value in values.values()):
            return None
        return cls({seed: value for seed, value in values.items() if value is not None})


@dataclass(frozen=True)
class ArmResult:
    """Hold what one arm reached and took; figures are of its chosen trials."""

    arm: str
    architecture: str
    strategy: str
    chosen: tuple[ChosenTrial, ...]
    """One a seed, in the order of seeds; fewer where all candidates of a seed failed."""
    val_metrics: Mapping[int, Metrics]
    """By seed."""
    test_metrics: Mapping[int, Metrics]
    """By seed; empty until the test set was read."""
    trained_parameters: int
    seconds: float
    """Mean wall seconds of training one chosen trial; its search is not in it."""
    images_per_s: float
    """Mean training images a second of the chosen trials."""
    peak_memory_bytes: int
    """Largest of the chosen trials."""
    num_done: int
    """Trials over all seeds and candidates."""
    num_failed: int
    total_seconds: float
    """Wall seconds of all the arm's trials, the search included."""

    def spread(self, split: str, name: str) -> Spread | None:
        """Return a metric over seeds; None where it is not defined.

        Args:
            split: val or test.
            name: One of `METRIC_NAMES`.
        """
        return Spread.of(self.val_metrics if split == "val" else self.test_metrics, name)

    @property
    def val_accuracy(self) -> Spread:
        """Return validation accuracy over seeds, which ranks the arms."""
        return Spread({trial.seed: trial.val_accuracy for trial in self.chosen})

    def rank_key(self) -> tuple[float, float, int, str]:
        """Return what the leaderboard is sorted by: validation alone, then the smaller training, then the name."""
        log_loss = Spread({trial.seed: trial.val_log_loss for trial in self.chosen}).mean
        accuracy = self.val_accuracy.mean
        return (
            math.inf if accuracy is None else -accuracy,
            math.inf if log_loss is None else log_loss,
            self.trained_parameters,
            self.arm,
        )

    def to_plain(self) -> dict[str, Any]:
        """Return one entry of `arms` in `leaderboard.json`, schema 1."""

        def plain(split: str) -> dict[str, Any]:
            spreads = {name: self.spread(split, name) for name in METRIC_NAMES}
            return {name: None if spread is None else spread.to_plain() for name, spread in spreads.items()}

        return {
            "arm": self.arm,
            "architecture": self.architecture,
            "strategy": self.strategy,
            **plain("test"),
            "val": plain("val"),
            "lr": {str(trial.seed): trial.lr for trial in self.chosen},
            "trained_parameters": self.trained_parameters,
            "seconds": self.seconds,
            "images_per_s": self.images_per_s,
            "peak_memory_bytes": self.peak_memory_bytes,
            "trials": {"done": self.num_done, "failed": self.num_failed},
        }


def build_arms(found: RunResults, choice: Choice) -> tuple[ArmResult, ...]:
    """Return every planned arm, best on validation first; one without a result comes last.

    Args:
        found: The trials and their metrics.
        choice: On validation.
    """
    names = dict.fromkeys((trial.arm, trial.architecture, trial.strategy) for trial in found.trials)
    arms = (_build_arm(*name, found, [trial for trial in choice.chosen if trial.arm == name[0]]) for name in names)
    return tuple(sorted(arms, key=ArmResult.rank_key))


def _build_arm(
    arm: str, architecture: str, strategy: str, found: RunResults, chosen: Sequence[ChosenTrial]
) -> ArmResult:
    ended = [result for result in found.results.values() if result.arm == arm]
    kept: list[TrialResult] = [found.results[trial.trial_id] for trial in chosen]

    def metrics(split: str) -> dict[int, Metrics]:
        pairs = {trial.seed: found.metrics.get((trial.trial_id, split)) for trial in chosen}
        return {seed: value for seed, value in pairs.items() if value is not None}

    return ArmResult(
        arm=arm,
        architecture=architecture,
        strategy=strategy,
        chosen=tuple(chosen),
        val_metrics=metrics("val"),
        test_metrics=metrics("test"),
        trained_parameters=max((result.trained_parameters for result in ended), default=0),
        seconds=statistics.fmean(result.seconds for result in kept) if kept else 0.0,
        images_per_s=statistics.fmean(result.images_per_s for result in kept) if kept else 0.0,
        peak_memory_bytes=max((result.peak_memory_bytes for result in kept), default=0),
        num_done=sum(result.state == "done" for result in ended),
        num_failed=sum(result.state == "failed" for result in ended),
        total_seconds=sum(result.seconds for result in ended),
    )
