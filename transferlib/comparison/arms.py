"""What each arm reached: the chosen trials' metrics over seeds with their intervals, and what training them took."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transferlib.comparison.choose import Choice, ChosenTrial
from transferlib.comparison.results import RunResults, TrialScores
from transferlib.comparison.statistics import arm_interval, seed_std
from transferlib.comparison.variance import Spread, borrow
from transferlib.evaluation.metrics import METRIC_NAMES
from transferlib.models.backbones import stage_names
from transferlib.models.sizes import training_flops_per_image
from transferlib.names import LOWER_IS_BETTER, METRIC_WORDS, METRICS, MIN_SEEDS
from transferlib.strategies import get_strategy

SHARES = frozenset(METRICS) - {"log_loss"}
"""Metrics between 0 and 1."""


@dataclass(frozen=True)
class Figure:
    """Hold one metric of one arm on one split, over its seeds."""

    by_seed: Mapping[int, float]
    low: float | None = None
    """95 % limits that hold for all arms at once; None for a metric that is no mean over images (ECE), and top-5."""
    high: float | None = None
    seed_std: float | None = None
    """Spread over seeds, the images' share taken out; None with one seed."""

    @property
    def mean(self) -> float:
        """Return the mean over seeds."""
        return statistics.fmean(self.by_seed.values())

    def to_plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "seed_std": self.seed_std,
            "by_seed": {str(seed): value for seed, value in self.by_seed.items()},
        }


@dataclass(frozen=True)
class ArmResult:
    """Hold what one arm reached and took; figures are of its chosen trials."""

    arm: str
    architecture: str
    strategy: str
    metric: str
    """Ranks the arms."""
    chosen: tuple[ChosenTrial, ...]
    """One a seed (and fold), in the order of seeds; fewer where all candidates of a seed failed."""
    figures: Mapping[str, Mapping[str, Figure]]
    """By split, then metric; no test until it was read, nothing for what is not defined (top-5 of few classes)."""
    trained_parameters: int
    train_flops: float
    """Floating-point operations of training one chosen trial: forward, backward, what is frozen forward only. Mean."""
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

    @property
    def rates(self) -> dict[str, float]:
        """Return the chosen rates by seed, or by seed and fold as `3-f2`."""
        return {trial.key.seed_name: trial.lr for trial in self.chosen}

    def figure(self, split: str, name: str) -> Figure | None:
        """Return a metric over seeds; None where it is not defined, or the split was not read.

        Args:
            split: val or test.
            name: One of `METRIC_NAMES`.
        """
        return self.figures.get(split, {}).get(name)

    def rank_key(self) -> tuple[float, float, int, str]:
        """Return what the leaderboard is sorted by: validation alone, then the smaller training, then the name."""
        ranking, log_loss = self.figure("val", self.metric), self.figure("val", "log_loss")
        if ranking is None or log_loss is None:
            return math.inf, math.inf, self.trained_parameters, self.arm
        value = ranking.mean if self.metric in LOWER_IS_BETTER else -ranking.mean
        return value, log_loss.mean, self.trained_parameters, self.arm

    def to_plain(self) -> dict[str, Any]:
        """Return one entry of `arms` in `leaderboard.json`, schema 2."""

        def plain(split: str) -> dict[str, Any]:
            found = {name: self.figure(split, name) for name in METRIC_NAMES}
            return {name: None if figure is None else figure.to_plain() for name, figure in found.items()}

        return {
            "arm": self.arm,
            "architecture": self.architecture,
            "strategy": self.strategy,
            **plain("test"),
            "val": plain("val"),
            "lr": self.rates,
            "trained_parameters": self.trained_parameters,
            "train_flops": self.train_flops,
            "seconds": self.seconds,
            "images_per_s": self.images_per_s,
            "peak_memory_bytes": self.peak_memory_bytes,
            "trials": {"done": self.num_done, "failed": self.num_failed},
        }


def ranked_by(metric: str) -> str:
    """Return the rule of the leaderboard's order in words."""
    ties = "" if metric == "log_loss" else ", then of validation log-loss"
    return f"mean over seeds of validation {METRIC_WORDS[metric]}{ties}"


def build_arms(found: RunResults, choice: Choice) -> tuple[ArmResult, ...]:
    """Return every planned arm, best on validation first; one without a result comes last.

    Args:
        found: The trials and their scores.
        choice: On validation.
    """
    names = dict.fromkeys((trial.arm, trial.architecture, trial.strategy) for trial in found.trials)
    chosen = {name[0]: [trial for trial in choice.chosen if trial.arm == name[0]] for name in names}
    figures = {split: _figures(found, chosen, split) for split in ("val", "test")}
    arms = (
        _build_arm(*name, found, chosen[name[0]], {split: of[name[0]] for split, of in figures.items()})
        for name in names
    )
    return tuple(sorted(arms, key=ArmResult.rank_key))


def _build_arm(
    arm: str,
    architecture: str,
    strategy: str,
    found: RunResults,
    chosen: Sequence[ChosenTrial],
    figures: Mapping[str, Mapping[str, Figure]],
) -> ArmResult:
    ended = [result for result in found.results.values() if result.arm == arm]
    kept = [found.results[trial.trial_id] for trial in chosen]
    flops = _flops_per_image(found, architecture, strategy)

    def mean_of(values: Sequence[float]) -> float:
        return statistics.fmean(values) if values else 0.0

    return ArmResult(
        arm=arm,
        architecture=architecture,
        strategy=strategy,
        metric=found.metric,
        chosen=tuple(chosen),
        figures=figures,
        trained_parameters=max((result.trained_parameters for result in ended), default=0),
        train_flops=mean_of([flops * result.epochs * found.num_trained_on(result.key) for result in kept]),
        seconds=mean_of([result.seconds for result in kept]),
        images_per_s=mean_of([result.images_per_s for result in kept]),
        peak_memory_bytes=max((result.peak_memory_bytes for result in kept), default=0),
        num_done=sum(result.state == "done" for result in ended),
        num_failed=sum(result.state == "failed" for result in ended),
        total_seconds=sum(result.seconds for result in ended),
    )


def _flops_per_image(found: RunResults, architecture: str, strategy: str) -> float:
    factors = get_strategy(strategy).stage_factors(stage_names(architecture), found.spec.strategies)
    return training_flops_per_image(architecture, factors, found.spec.data.image_size, num_classes=len(found.classes))


def _figures(
    found: RunResults, chosen: Mapping[str, Sequence[ChosenTrial]], split: str
) -> dict[str, dict[str, Figure]]:
    """Return each arm's metrics that are defined, the limits over all arms at once, as a judgement has them.

    An arm has none where a split was not read by all of its chosen trials. Seeds that are not whole count for nothing.
    """
    read: dict[str, dict[int, TrialScores]] = {}
    for arm, trials in chosen.items():
        is_read = all((trial.trial_id, split) in found.scores for trial in trials)
        read[arm] = found.by_seed(trials, split) if is_read else {}
    figures: dict[str, dict[str, Figure]] = {arm: {} for arm in chosen}
    with_scores = {arm: scores for arm, scores in read.items() if scores}
    for name in METRIC_NAMES:
        for arm, of_arm in with_scores.items():
            values = {seed: score.metrics.value(name) for seed, score in of_arm.items()}
            if by_seed := {seed: value for seed, value in values.items() if value is not None}:
                figures[arm][name] = Figure(by_seed)
        if name in METRICS and with_scores:
            _set_limits(found, with_scores, split, name, figures)
    return figures


def _set_limits(
    found: RunResults,
    scores: Mapping[str, Mapping[int, TrialScores]],
    split: str,
    name: str,
    figures: Mapping[str, dict[str, Figure]],
) -> None:
    rows = found.splits[split].rows(name)
    own = [Spread.of(np.stack([score.values[name] for score in of.values()]), rows) for of in scores.values()]
    for arm, spread, borrowed in zip(scores, own, borrow(own, MIN_SEEDS), strict=True):
        low, high = arm_interval(borrowed, rows, len(own), is_share=name in SHARES)
        figures[arm][name] = replace(figures[arm][name], low=float(low), high=float(high), seed_std=seed_std(spread))
