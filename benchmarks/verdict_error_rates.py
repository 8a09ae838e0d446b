"""Measure how often the verdict is wrong, on comparisons whose truth is known.

    python benchmarks/verdict_error_rates.py --write docs/benchmarks/...md

The new rule is `transferlib.comparison.statistics` on test predictions. The old one looked at validation accuracy: the
best arm was separated from another where mean - sd over seeds was above the other's mean + sd; of those not separated,
the cheapest was recommended where it cost less than 0.9 of the best. One process, one core.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from prediction_tables import (
    Regime,
    accuracies_with_gap,
    draw_tables,
)

from transferlib.comparison.statistics import (
    ALPHA,
    MIN_SEEDS,
    arm_interval,
    at_worst,
    holm,
)
from transferlib.comparison.variance import Rows, Spread, borrow, these_models, trained_again

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]
    Sums = dict[str, list[Floats]]

MARGIN = 0.02
GAP = 0.02
CHEAPER = 0.9
NUMS_IMAGES, NUMS_SEEDS, NUMS_ARMS = (45, 150, 300, 1000, 3000), (1, 2, 3, 5, 10), (2, 3, 5, 8)
VALUES_AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class Reading:
    """Hold what the new rule says in R repetitions; pairs as in `Judgement`.

    Attributes:
        separated: int64 [R, P], the sign of the difference where it is separated, else 0.
        pairs: float64 [2, R, P], limits of a pair's difference if trained again (of these models with few seeds).
        models: float64 [2, R, P], limits of a pair's difference for these models.
        arms: float64 [2, R, A], limits of the arms, for all at once.
        worst: float64 [R, A], how much worse than the best of the others; without end where nothing is claimed.
        means: float64 [R, A].
    """

    separated: npt.NDArray[np.int64]
    pairs: Floats
    models: Floats
    arms: Floats
    worst: Floats
    means: Floats


def read(values: Floats, rows: Rows, *, lower_is_better: bool = False, is_share: bool = True) -> Reading:
    """Read values [R, A, S, N] by the functions that `judge` is made of."""
    num_arms, num_seeds = values.shape[1:3]
    spreads = borrow([Spread.of(values[:, arm], rows) for arm in range(num_arms)], MIN_SEEDS)
    pairs = list(combinations(spreads, 2))
    fixed = [these_models(a, b) for a, b in pairs]
    anew = [trained_again(a, b) for a, b in pairs] if num_seeds >= MIN_SEEDS else fixed
    p_holm = holm(np.stack([found.p for found in anew], axis=-1))
    is_separated = (p_holm < ALPHA) & (num_seeds >= MIN_SEEDS)
    sign = np.sign(np.stack([found.value for found in anew], axis=-1)).astype(np.int64)
    limits = [
        np.stack([found.value + side * found.margin(1 - ALPHA / 2) for found in reading], axis=-1)
        for reading in (anew, fixed)
        for side in (-1, 1)
    ]
    arms = [np.stack(arm_interval(spread, rows, num_arms, is_share=is_share)) for spread in spreads]
    worst = at_worst(spreads, rows, lower_is_better=lower_is_better, is_share=is_share)
    means = np.stack([spread.mean for spread in spreads], axis=-1)
    return Reading(
        separated=np.where(is_separated, sign, 0),
        pairs=np.stack(limits[:2]),
        models=np.stack(limits[2:]),
        arms=np.stack(arms, axis=-1),
        worst=np.full_like(means, np.inf) if worst is None else worst.T,
        means=means,
    )


@dataclass(frozen=True, eq=False)
class OldReading:
    """Hold what the old rule said in R repetitions.

    Attributes:
        best: int64 [R], the arm of the highest mean on validation.
        separated: bool [R, A], arms that the best is separated from.
        recommended: int64 [R].
    """

    best: npt.NDArray[np.int64]
    separated: Bools
    recommended: npt.NDArray[np.int64]


def read_old(seed_means: Floats, costs: Floats) -> OldReading:
    """Read validation accuracies [R, A, S] by the rule that was; costs [A]."""
    mean = seed_means.mean(axis=-1)
    best = mean.argmax(axis=1)
    is_best = np.arange(len(costs)) == best[:, None]
    if seed_means.shape[-1] < 2:
        return OldReading(best, np.zeros_like(is_best), best)
    std = seed_means.std(axis=-1, ddof=1)
    repetitions = np.arange(len(best))
    separated = (mean - std)[repetitions, best][:, None] > mean + std
    cheapest = np.where(separated & ~is_best, np.inf, costs).argmin(axis=1)
    recommended = np.where(costs[cheapest] < CHEAPER * costs[best], cheapest, best)
    return OldReading(best, separated & ~is_best, recommended)


def costs_of(num_arms: int) -> Floats:
    """Return costs of arms: the first, which is the better one where one is, is the dearest."""
    return np.linspace(1.0, 0.3, num_arms)


def file_of(val_means: Floats, generator: np.random.Generator, arms: npt.NDArray[np.int64] | None = None) -> Floats:
    """Return, as a mask [R, A, S], the model that is best on validation, over all arms or of one arm; ties are drawn."""
    scores = val_means + generator.uniform(0, 1e-9, val_means.shape)
    if arms is not None:
        scores = np.where(np.arange(val_means.shape[1])[None, :, None] == arms[:, None, None], scores, -1.0)
    flat = scores.reshape(len(scores), -1)
    return (np.arange(flat.shape[1]) == flat.argmax(axis=1)[:, None]).reshape(val_means.shape)


def recommend(reading: Reading, costs: Floats) -> tuple[npt.NDArray[np.int64], Bools]:
    """Return the arm to train next time [R], and where one was named as good enough (else the highest mean is taken)."""
    best = reading.means.argmax(axis=1)
    qualifies = (reading.worst < MARGIN) & (costs <= CHEAPER * costs[best][:, None])
    cheapest = np.where(qualifies, costs, np.inf).argmin(axis=1)
    is_named = qualifies.any(axis=1)
    return np.where(is_named, cheapest, best), is_named


def measure_gap(
    regime: Regime, gap: float, num_images: int, num_seeds: int, tables: tuple[Floats, Floats, Floats], sums: Sums
) -> None:
    """Add what both rules do in these repetitions, by name.

    Args:
        regime: For the true accuracies.
        gap: The first arm is truly better by so much; 0: all are equal.
        num_images: N of test, and of validation.
        num_seeds: S.
        tables: Values of test [R, A, S, N], seed means of validation [R, A, S], true accuracies of models [R, A, S].
        sums: What was found so far.
    """
    values, val_means, models = tables
    num_arms = values.shape[1]
    truth = np.array(accuracies_with_gap(regime.accuracy, gap, num_arms))
    pairs = list(combinations(range(num_arms), 2))
    reading, costs = read(values, Rows.of(num_images)), costs_of(num_arms)
    old = read_old(val_means, costs)
    true_gaps = np.array([truth[a] - truth[b] for a, b in pairs])
    gaps_of_models = np.stack([(models[:, a] - models[:, b]).mean(axis=-1) for a, b in pairs], axis=-1)
    sums["models_covered"].append(_is_within(reading.models, gaps_of_models).mean(axis=1))
    if num_seeds >= MIN_SEEDS:
        sums["pair_covered"].append(_is_within(reading.pairs, true_gaps).mean(axis=1))
        sums["arms_covered"].append(_is_within(reading.arms, truth).all(axis=1))
        sums["arm_covered"].append(_is_within(reading.arms, truth).mean(axis=1))
    else:
        sums["arms_covered"].append(_is_within(reading.arms, models.mean(axis=-1)).all(axis=1))
    if gap == 0:
        sums["false"].append((reading.separated != 0).any(axis=1))
        sums["old_false"].append(old.separated.any(axis=1))
        return
    generator = np.random.default_rng(num_images)
    recommended, is_named = recommend(reading, costs)
    sums["found"].append((reading.separated[:, : num_arms - 1] > 0).mean(axis=1))
    sums["old_found"].append((old.separated[:, 1:] & (old.best == 0)[:, None]).mean(axis=1))
    sums["good_enough_but_worse"].append((reading.worst[:, 1:] < gap).any(axis=1))
    sums["is_named"].append(is_named)
    sums["regret"].append(truth[0] - truth[recommended])
    sums["old_regret"].append(truth[0] - truth[old.recommended])
    sums["old_recommends_worse"].append(old.recommended != 0)
    sums["highest_mean_is_worse"].append(old.best != 0)
    file, old_file = file_of(val_means, generator), file_of(val_means, generator, old.recommended)
    sums["file_of_worse_arm"].append(~file[:, 0].any(axis=-1))
    sums["file_regret"].append(truth[0] - (models * file).sum(axis=(1, 2)))
    sums["old_file_regret"].append(truth[0] - (models * old_file).sum(axis=(1, 2)))


def _is_within(limits: Floats, truth: Floats) -> Bools:
    inside: Bools = (limits[0] <= truth) & (truth <= limits[1])
    return inside


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
    most_arms, most_seeds = max(nums_arms), max(nums_seeds)
    for size in _chunks(num_repetitions, most_arms * most_seeds * 2 * num_images):
        for gap in gaps:
            accuracies = accuracies_with_gap(regime.accuracy, gap, most_arms)
            drawn = draw_tables(regime, accuracies, most_seeds, 2 * num_images, size, generator)
            test = drawn.values[..., :num_images]
            val = drawn.values[..., num_images:].mean(axis=-1)
            for seeds in nums_seeds:
                for arms in nums_arms:
                    part = (test[:, :arms, :seeds], val[:, :arms, :seeds], drawn.model_accuracies[:, :arms, :seeds])
                    measure_gap(regime, gap, num_images, seeds, part, found[seeds, arms])
    return {key: _means(sums) for key, sums in found.items()}


def _chunks(num_repetitions: int, values_each: int) -> Iterable[int]:
    size = max(1, min(num_repetitions, VALUES_AT_ONCE // values_each))
    for start in range(0, num_repetitions, size):
        yield min(size, num_repetitions - start)


def _means(sums: Sums) -> dict[str, float]:
    return {name: float(np.concatenate(parts).mean()) for name, parts in sums.items()}
