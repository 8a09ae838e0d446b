"""Variance of an arm's mean, and of a difference of two: over images alone, and over images and seeds.

`comparison.statistics` says what is computed and why, and makes statements of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from scipy.special import stdtr, stdtrit

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Cell = tuple[int, int]
    """A seed and a fold."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Say which of N images belong together: the one place that decides it.

    Attributes:
        groups: int64 [N], 0 to G - 1; images of one group are one observation.
        strata: int64 [N], 0 to K - 1; variance is taken within strata.
    """

    groups: npt.NDArray[np.int64]
    strata: npt.NDArray[np.int64]

    @classmethod
    def of(cls, num_images: int, groups: npt.ArrayLike | None = None, strata: npt.ArrayLike | None = None) -> Self:
        """Relabel groups and strata from 0, and merge strata of fewer than two groups with the next larger one.

        Args:
            num_images: N, at least 1.
            groups: N labels of any kind; None: each image is its own group.
            strata: N labels of any kind; None: one stratum.

        Source: Cochran 1977, Sampling Techniques, section 5A.12 (collapsed strata: variance is then too large if
        anything).
        """
        group, stratum = (
            otherwise if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64)
            for labels, otherwise in ((groups, np.arange(num_images)), (strata, np.zeros(num_images, np.int64)))
        )
        while True:
            sizes = _groups_per_stratum(group, stratum)
            smallest = int(np.argmin(sizes))
            if sizes[smallest] > 1 or len(sizes) == 1:
                return cls(group, stratum)
            into = int(np.argsort(sizes, kind="stable")[1])
            stratum = np.unique(np.where(stratum == smallest, into, stratum), return_inverse=True)[1]

    @property
    def num_groups(self) -> int:
        """Return G."""
        return int(self.groups.max()) + 1

    @property
    def df(self) -> float:
        """Return the degrees of freedom of a variance over images: groups less strata.

        Groups of unequal size count as N^2 / sum n_g^2 of equal ones. Source: Kish 1965, Survey Sampling, section 5.4.
        """
        return max(self.num_groups_effective - len(self._stratum_sizes), 1.0)

    @property
    def num_groups_effective(self) -> float:
        """Return how many groups of equal size weigh as much: N^2 / sum n_g^2, at most G."""
        sizes = np.bincount(self.groups).astype(np.float64)
        return float(np.square(sizes.sum()) / np.square(sizes).sum())

    def sum_by_group(self, values: Floats) -> Floats:
        """Add up images of one group: [..., N] to [..., G]."""
        if self.num_groups == len(self.groups):
            return values
        order, starts = self._group_order
        return np.add.reduceat(values[..., order], starts, axis=-1)

    def deviations(self, values: Floats) -> Floats:
        """Return deviations [..., G] whose sum of squares is the variance of the mean of values [..., N] over images.

        A deviation is what the mean changes by without the group, over sqrt(G_k / (G_k - 1)) with G_k groups in stratum
        k: (n_k / N) sum of (value - mean of its stratum) / (n_k - n_kg) with n_k images in the stratum, n_kg of them of
        the group. For single images that is the usual N - 1. Source: delete-one-group jackknife, Shao and Tu 1995,
        section 5.
        """
        num_images = values.shape[-1]
        sizes = self._stratum_sizes
        if len(sizes) == 1:
            centred = values - values.mean(axis=-1, keepdims=True)
        else:
            order, starts = _sorted_by(self.strata)
            sums = np.add.reduceat(values[..., order], starts, axis=-1)
            centred = values - (sums / np.bincount(self.strata))[..., self.strata]
        in_stratum = np.bincount(self.strata)[self.strata]
        _, pair, of_pair = np.unique(self.groups * len(sizes) + self.strata, return_inverse=True, return_counts=True)
        left = np.maximum(in_stratum - of_pair[pair], 1)
        scale = np.sqrt((sizes - 1) / np.maximum(sizes, 1))[self.strata] * in_stratum / (num_images * left)
        return self.sum_by_group(centred * scale)

    @cached_property
    def _stratum_sizes(self) -> npt.NDArray[np.int64]:
        return _groups_per_stratum(self.groups, self.strata)

    @cached_property
    def _group_order(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return _sorted_by(self.groups)


@dataclass(frozen=True, eq=False)
class Spread:
    """Hold what an arm's values say of its mean; leading axes (...) are repetitions of the whole experiment.

    Attributes:
        num_seeds: S.
        mean: float64 [...], m.
        deviations: float64 [..., G], of the image means: their sum of squares is V_f.
        noise: float64 [...], MSE / N; 0 with one seed.
        between_seeds: float64 [...], MSS / N, the variance of seed means; 0 with one seed.
        floor: float64 [...], the variance of one right image, or group of mean size: (mean square of the values that
            are not 0) / N^2, times sum n_g^2 / N.
        df: Degrees of freedom of a variance over images.
    """

    num_seeds: int
    mean: Floats
    deviations: Floats
    noise: Floats
    between_seeds: Floats
    floor: Floats
    df: float

    @classmethod
    def of(cls, values: Floats, rows: Rows) -> Self:
        """Compute it from values [..., S, N]."""
        num_seeds = values.shape[-2]
        seed_means = values.mean(axis=-1)
        mean = seed_means.mean(axis=-1)
        noise = between = np.zeros_like(mean)
        deviations = rows.deviations(values.mean(axis=-2))
        if num_seeds > 1:
            between = seed_means.var(axis=-1, ddof=1)
            alone = rows.deviations(values) - deviations[..., None, :]
            noise = np.square(alone).sum(axis=(-2, -1)) / (num_seeds - 1)
        num_counted = np.count_nonzero(values, axis=(-2, -1))
        square = np.square(values).sum(axis=(-2, -1))
        weight = np.where(num_counted > 0, square / np.maximum(num_counted, 1), 1.0)
        return cls(
            num_seeds,
            mean,
            deviations,
            noise,
            between,
            weight / (rows.num_groups_effective * values.shape[-1]),
            rows.df,
        )


LEAST_OF_MEAN = 1 / 3
"""Least variance over seeds that an arm is credited with, as a share of the mean of all arms'."""
MOST_OF_MEDIAN = {2: 50.0}
"""What an arm's variance counts for in that mean at most, in (lower) medians, by number of arms; else the default."""
MOST_OF_MEDIAN_DEFAULT = 10.0


def borrow(spreads: Sequence[Spread], min_seeds: int) -> list[Spread]:
    """Return spreads of which no variance over seeds is below a third of the arms' mean.

    The seeds of an arm agree now and then by chance (of three, in one case of twenty to a twentieth of their variance),
    and Satterthwaite's degrees of freedom are then those of the images: far too many. Over the 28 pairs of eight arms
    that made 11 % false separations; with this floor it is 5 % (`benchmarks/verdict_error_rates.py`). Arms may still
    differ in their spread, as they do. Smyth 2004 moderates variances for the same reason.

    In the mean an arm counts for ten times the median at most (of two arms, whose smaller one may be small by chance,
    for fifty times), so that one of which a seed has gone astray makes no other arm uncertain.

    Args:
        spreads: Of all arms.
        min_seeds: Arms with fewer take no part.
    """
    known = [spread.between_seeds for spread in spreads if spread.num_seeds >= min_seeds]
    if not known:
        return list(spreads)
    most = MOST_OF_MEDIAN.get(len(known), MOST_OF_MEDIAN_DEFAULT) * np.sort(known, axis=0)[(len(known) - 1) // 2]
    least = LEAST_OF_MEAN * np.mean(np.minimum(known, most), axis=0)
    return [
        replace(spread, between_seeds=np.maximum(spread.between_seeds, least))
        if spread.num_seeds >= min_seeds
        else spread
        for spread in spreads
    ]


class Estimate(NamedTuple):
    """Hold a mean or a difference with its variance, float64 [...] each, and read it with Student's t."""

    value: Floats
    variance: Floats
    df: Floats

    @property
    def p(self) -> Floats:
        """Return the two-sided p value of "it is 0"."""
        p: Floats = 2 * stdtr(self.df, -np.abs(self.value) / np.sqrt(self.variance))
        return p

    def margin(self, level: float) -> Floats:
        """Return the t quantile at `level`, times the standard error."""
        margin: Floats = stdtrit(self.df, level) * np.sqrt(self.variance)
        return margin

    def effective_images(self, num_groups: int) -> Floats:
        """Return how many single images would leave a share as uncertain; G where it is 0 or 1."""
        binomial = np.clip(self.value, 0, 1) * (1 - np.clip(self.value, 0, 1))
        return np.where(binomial > 0, binomial / self.variance, float(num_groups))


def these_models(a: Spread, b: Spread | None = None) -> Estimate:
    """Estimate a - b (or a alone) over images drawn anew, for the models as they are trained."""
    deviations = a.deviations if b is None else a.deviations - b.deviations
    floor = a.floor if b is None else a.floor + b.floor
    variance = np.maximum(np.square(deviations).sum(axis=-1), floor)
    value = a.mean if b is None else a.mean - b.mean
    return Estimate(value, variance, np.full_like(variance, a.df))


def trained_again(a: Spread, b: Spread | None = None) -> Estimate:
    """Estimate a - b (or a alone) over images drawn and models trained anew; an arm of one seed counts as fixed."""
    fixed = these_models(a, b)
    arms = (a,) if b is None else (a, b)
    seeds = [arm.between_seeds / arm.num_seeds for arm in arms]
    images = np.maximum(fixed.variance - sum(arm.noise / arm.num_seeds for arm in arms), 0)
    # Where seeds agree by chance as well, one right image an arm remains.
    images = np.maximum(images, sum(arm.floor for arm in arms) - sum(seeds))
    return satterthwaite(fixed.value, [(images, a.df), *zip(seeds, (arm.num_seeds - 1 for arm in arms), strict=True)])


def other_images(a: Mapping[Cell, float], b: Mapping[Cell, float], test_per_train: float, least: float) -> Estimate:
    """Estimate a - b over other training and test images, from the differences d_j on J folds of all seeds.

    Their variance s^2 counts for (1 / J + n_test / n_train): training sets of two folds have most images in common, so
    J of them tell less than J that do not. J - 1 degrees of freedom.

    Args:
        a: Mean of the metric's values by seed and fold; folds that the other lacks do not count.
        b: Of the other arm.
        test_per_train: Images a fold is tested on for each one it is trained on.
        least: Least variance.

    Source: Nadeau and Bengio 2003, Inference for the Generalization Error, section 4; over repeated cuts: Bouckaert and
    Frank 2004, Evaluating the Replicability of Significance Tests for Comparing Learning Algorithms.
    """
    gaps = np.array([a[cell] - b[cell] for cell in a if cell in b])
    variance = max(float(gaps.var(ddof=1)) * (1 / len(gaps) + test_per_train), least)
    return Estimate(*(np.asarray(value, np.float64) for value in (gaps.mean(), variance, len(gaps) - 1)))


def satterthwaite(value: Floats, parts: Sequence[tuple[Floats, Floats | float]]) -> Estimate:
    """Add up independent parts of a variance, each with its degrees of freedom.

    Source: Satterthwaite 1946, An Approximate Distribution of Estimates of Variance Components.
    """
    variance = sum((part for part, _ in parts), np.zeros_like(value))
    below = sum((np.square(part) / np.maximum(df, 1) for part, df in parts), np.zeros_like(value))
    return Estimate(value, variance, np.square(variance) / below)


def _groups_per_stratum(groups: npt.NDArray[np.int64], strata: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    num_strata = int(strata.max()) + 1
    return np.bincount(np.unique(groups * num_strata + strata) % num_strata)


def _sorted_by(labels: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return an order that puts equal labels side by side, and where each label begins."""
    order = np.argsort(labels, kind="stable")
    return order, np.searchsorted(labels[order], np.arange(int(labels.max()) + 1))
