"""A verdict given thousands of times on comparisons whose truth is known: what of it is right, as shares by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from prediction_tables import (
    FEW_OF_SOME,
    Regime,
    accuracies_with_gap,
    draw_labels,
    draw_logits,
    draw_tables,
    true_value,
)
from verdict_rules import Answers, OldReading, Reading, costs_of, file_of, is_within, read, read_old, recommend

from transferlib.comparison.variance import Rows
from transferlib.evaluation.image_values import image_values, strata_of
from transferlib.names import LOWER_IS_BETTER, METRICS, MIN_SEEDS

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Sums = dict[str, list[Any]]

GAP = 0.02
"""By how much the better arm is truly better, where one is."""
VALUES_AT_ONCE = 2**24
"""Drawn at once: 64 MiB of latent values."""


@dataclass(frozen=True, eq=False)
class Repetitions:
    """Hold R repetitions of a comparison of A arms with S seeds, as the rules see it, and the truth.

    Attributes:
        answers: Of the arms on test.
        rows: Of the test images.
        val_means: float64 [R, A, S], accuracies on validation.
        models: float64 [R, A, S], true accuracies of the models.
        truth: float64 [A], true accuracies of the arms.
    """

    answers: Answers
    rows: Rows
    val_means: Floats
    models: Floats
    truth: Floats

    def add_coverage(self, reading: Reading, sums: Sums) -> None:
        """Add how often limits hold the truth."""
        pairs = list(combinations(range(len(self.truth)), 2))
        of_models = np.stack([(self.models[:, a] - self.models[:, b]).mean(axis=-1) for a, b in pairs], axis=-1)
        sums["models_covered"].append(is_within(reading.models, of_models).mean(axis=1))
        if self.models.shape[-1] < MIN_SEEDS:
            sums["arms_covered"].append(is_within(reading.arms, self.models.mean(axis=-1)).all(axis=1))
            return
        true_gaps = np.array([self.truth[a] - self.truth[b] for a, b in pairs])
        sums["pair_covered"].append(is_within(reading.pairs, true_gaps).mean(axis=1))
        sums["arms_covered"].append(is_within(reading.arms, self.truth).all(axis=1))

    def add_choices(self, reading: Reading, old: OldReading, costs: Floats, sums: Sums) -> None:
        """Add what is found, named and handed over where the first arm is truly the best."""
        best, generator = self.truth[0], np.random.default_rng(0)
        if self.models.shape[-1] >= MIN_SEEDS:
            sums["found"].append((reading.separated[:, : len(self.truth) - 1] > 0).mean(axis=1))
            sums["good_enough_but_worse"].append((reading.worst[:, 1:] < best - self.truth[1:]).any(axis=1))
        sums["old_found"].append((old.separated[:, 1:] & (old.best == 0)[:, None]).mean(axis=1))
        sums["regret"].append(best - self.truth[recommend(reading, costs)])
        sums["old_regret"].append(best - self.truth[old.recommended])
        sums["old_recommends_worse"].append(old.recommended != 0)
        sums["highest_mean_is_worse"].append(old.best != 0)
        file = file_of(self.val_means, generator)
        old_file = file_of(self.val_means, generator, old.recommended)
        sums["file_of_worse_arm"].append(~file[:, 0].any(axis=-1))
        sums["file_regret"].append(best - (self.models * file).sum(axis=(1, 2)))
        sums["old_file_regret"].append(best - (self.models * old_file).sum(axis=(1, 2)))

    def add(self, sums: Sums) -> None:
        """Add what both rules do."""
        costs = costs_of(len(self.truth))
        reading, old = read(self.answers, self.rows), read_old(self.val_means, costs)
        self.add_coverage(reading, sums)
        if np.ptp(self.truth) > 0:
            self.add_choices(reading, old, costs, sums)
        else:
            if self.models.shape[-1] >= MIN_SEEDS:
                sums["false"].append((reading.separated != 0).any(axis=1))
            sums["old_false"].append(old.separated.any(axis=1))


def measure_rates(
    regime: Regime,
    num_images: int,
    nums_seeds: Sequence[int],
    nums_arms: Sequence[int],
    num_repetitions: int,
    generator: np.random.Generator,
    gaps: Sequence[float] = (0.0, GAP),
) -> dict[tuple[int, int], dict[str, float]]:
    """Return shares and means by name, for each (S, A); fewer arms and seeds are the first ones of the same tables."""
    found: dict[tuple[int, int], Sums] = defaultdict(lambda: defaultdict(list))
    most_arms, most_seeds, rows = max(nums_arms), max(nums_seeds), Rows.of(num_images)
    for size in _chunks(num_repetitions, most_arms * most_seeds * 2 * num_images):
        for gap in gaps:
            truth = accuracies_with_gap(regime.accuracy, gap, most_arms)
            drawn = draw_tables(regime, truth, most_seeds, 2 * num_images, size, generator)
            val_means = drawn.values[..., num_images:].mean(axis=-1)
            for seeds in nums_seeds:
                answers = Answers.of(drawn.values[:, :, :seeds, :num_images], rows)
                for arms in nums_arms:
                    val, models = (part[:, :arms, :seeds] for part in (val_means, drawn.model_accuracies))
                    Repetitions(answers.first(arms), rows, val, models, np.array(truth[:arms])).add(found[seeds, arms])
    return {key: _means(sums) for key, sums in found.items()}


def _chunks(num_repetitions: int, values_each: int) -> Iterable[int]:
    size = max(1, min(num_repetitions, VALUES_AT_ONCE // values_each))
    for start in range(0, num_repetitions, size):
        yield min(size, num_repetitions - start)


def _means(sums: Sums) -> dict[str, float]:
    return {name: float(np.concatenate(parts).mean()) for name, parts in sums.items()}


def measure_metrics(
    regime: Regime,
    gap: float,
    num_images: int,
    nums_seeds: Sequence[int],
    num_arms: int,
    num_repetitions: int,
    generator: np.random.Generator,
) -> dict[tuple[str, int], dict[str, float]]:
    """Return what the new rule does with each metric, for each (metric, S), on five classes of unequal size.

    Where a gap is asked for, it is one of accuracy; what it is in another metric is reckoned.
    """
    found: dict[tuple[str, int], Sums] = defaultdict(lambda: defaultdict(list))
    accuracies = accuracies_with_gap(regime.accuracy, gap, num_arms)
    truths = {
        metric: np.array(
            [true_value(metric, regime, FEW_OF_SOME, arm, accuracy) for arm, accuracy in enumerate(accuracies)]
        )
        for metric in METRICS
    }
    for _ in range(num_repetitions):
        labels = draw_labels(FEW_OF_SOME, num_images, generator)
        logits = draw_logits(regime, FEW_OF_SOME, accuracies, max(nums_seeds), labels, generator)
        for metric in METRICS:
            values = np.stack([[image_values(metric, labels, seed) for seed in arm] for arm in logits])
            rows = Rows.of(num_images, strata=strata_of(metric, labels))
            for seeds in nums_seeds:
                _add_metric(metric, values[None, :, :seeds], rows, truths[metric], gap, found[metric, seeds])
    return {key: _means(sums) for key, sums in found.items()}


def _add_metric(metric: str, values: Floats, rows: Rows, truth: Floats, gap: float, sums: Sums) -> None:
    is_loss = metric in LOWER_IS_BETTER
    reading = read(Answers.of(values, rows), rows, lower_is_better=is_loss, is_share=not is_loss)
    true_gaps = np.array([truth[a] - truth[b] for a, b in combinations(range(len(truth)), 2)])
    sums["pair_covered"].append(is_within(reading.pairs, true_gaps).mean(axis=1))
    sums["arms_covered"].append(is_within(reading.arms, truth).all(axis=1))
    if gap == 0:
        sums["false"].append((reading.separated != 0).any(axis=1))
        return
    sign = -1 if is_loss else 1
    sums["found"].append((sign * reading.separated[:, : len(truth) - 1] > 0).mean(axis=1))
    sums["good_enough_but_worse"].append((reading.worst[:, 1:] < sign * (truth[0] - truth[1:])).any(axis=1))
