"""The rules that `verdict_error_rates.py` measures: the new, by the functions that `judge` is made of, and the old."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Self

import numpy as np

from transferlib.comparison.statistics import (
    ALPHA,
    arm_interval,
    at_worst,
    holm,
    num_discordant,
    sign_bound,
)
from transferlib.comparison.variance import Rows, Spread, borrow, these_models, trained_again
from transferlib.names import MIN_SEEDS

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

MARGIN = 0.02
"""`--margin`'s default: an arm is good enough that is not worse by so much."""
CHEAPER = 0.9
"""An arm is cheaper below this share of the best one's cost."""


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

    separated: Integers
    pairs: Floats
    models: Floats
    arms: Floats
    worst: Floats
    means: Floats


@dataclass(frozen=True, eq=False)
class Answers:
    """Hold what the rule needs of A arms with equally many seeds, in R repetitions.

    Attributes:
        spreads: Of the arms.
        image_means: float64 [R, A, N], means over seeds.
    """

    spreads: Sequence[Spread]
    image_means: Floats

    @classmethod
    def of(cls, values: Floats, rows: Rows) -> Self:
        """Compute it from values [R, A, S, N]."""
        return cls([Spread.of(values[:, arm], rows) for arm in range(values.shape[1])], values.mean(axis=-2))

    def first(self, num_arms: int) -> Self:
        """Return the first arms alone."""
        return type(self)(self.spreads[:num_arms], self.image_means[:, :num_arms])

    def least_p(self, a: int, b: int, rows: Rows) -> Floats:
        """Return the smallest p value that two arms can have [R]."""
        means = self.image_means[:, :, None]
        return sign_bound(num_discordant(means[:, a], means[:, b], rows))


def read(answers: Answers, rows: Rows, *, lower_is_better: bool = False, is_share: bool = True) -> Reading:
    """Read what A arms answered by the functions that `judge` is made of."""
    num_arms, num_seeds = len(answers.spreads), answers.spreads[0].num_seeds
    spreads = borrow(answers.spreads, MIN_SEEDS)
    pairs = list(combinations(spreads, 2))
    fixed = [these_models(a, b) for a, b in pairs]
    anew = [trained_again(a, b) for a, b in pairs] if num_seeds >= MIN_SEEDS else fixed
    least = [answers.least_p(a, b, rows) for a, b in combinations(range(num_arms), 2)]
    p_holm = holm(np.stack([np.maximum(found.p, p) for found, p in zip(anew, least, strict=True)], axis=-1))
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

    best: Integers
    separated: Bools
    recommended: Integers


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


def file_of(val_means: Floats, generator: np.random.Generator, arms: Integers | None = None) -> Bools:
    """Return as a mask [R, A, S] the model that is best on validation, of all arms or of one; ties are drawn."""
    scores = val_means + generator.uniform(0, 1e-9, val_means.shape)
    if arms is not None:
        scores = np.where(np.arange(val_means.shape[1])[None, :, None] == arms[:, None, None], scores, -1.0)
    flat = scores.reshape(len(scores), -1)
    is_best: Bools = (np.arange(flat.shape[1]) == flat.argmax(axis=1)[:, None]).reshape(val_means.shape)
    return is_best


def recommend(reading: Reading, costs: Floats) -> Integers:
    """Return the arm to train next time [R]: the cheapest good enough one that is cheaper, else the highest mean."""
    best: Integers = reading.means.argmax(axis=1)
    qualifies = (reading.worst < MARGIN) & (costs <= CHEAPER * costs[best][:, None])
    cheapest: Integers = np.where(qualifies, costs, np.inf).argmin(axis=1)
    return np.where(qualifies.any(axis=1), cheapest, best)


def is_within(limits: Floats, truth: Floats) -> Bools:
    """Return where truth lies between limits [2, ...]."""
    return np.asarray((limits[0] <= truth) & (truth <= limits[1]))
