"""What test predictions say of the arms: intervals, differences and tests whose error rates are known.

Everything is a mean over images of a value y[s, i] of seed s and image i (accuracy: 1 where the model is right; see
`evaluation.image_values` for the other metrics). An arm has S seeds, the test set N images; m_s is a seed's mean, m the
arm's, c_i an image's mean over seeds. Arms and seeds saw the same images, so differences are taken image by image.

    MSS = N sum_s (m_s - m)^2 / (S - 1)                           seeds
    MSE = sum_si (y_si - c_i - m_s + m)^2 / ((N - 1)(S - 1))      seed x image
    V_f = sum_i (u_i - d)^2 / ((N - 1) N)                         u_i = c_ai - c_bi, d = mean of u_i

* **These trained models** (seeds fixed, images drawn): variance V_f, N - 1 degrees of freedom. With one seed this is
  the paired t test.
* **If trained again** (seeds and images drawn; three seeds or more): with q = MSS / (N S) of each arm and
  B = max(0, V_f - (MSE_a / S_a + MSE_b / S_b) / N), the variance is V = B + q_a + q_b, with
  df = V^2 / (q_a^2 / (S_a - 1) + q_b^2 / (S_b - 1) + B^2 / (N - 1)).
  Source: crossed random effects, as readers (here seeds, nested in arms) and cases (images) of diagnostic studies:
  Obuchowski and Rockette 1995; Hillis 2007. df: Satterthwaite 1946.
* **With other training images** (only where images are cut into folds): the differences on J folds have variance s^2;
  the mean has s^2 (1 / J + n_test / n_train), with J - 1 degrees of freedom (Nadeau and Bengio 2003).
* **Over all pairs** p values are at least the exact sign test's of as many discordant images, and then Holm's (1979):
  one false separation or more in at most 5 % of comparisons. For all statements MSS of an arm counts for at least a
  third of the arms' mean (`variance.borrow` says how and why).
* **An arm's share** has Wilson's interval (1927) at the effective number of images m (1 - m) / V; its log-loss has one
  that is symmetric for the logarithm (losses are skewed: m -+ t sqrt(V) covered 89 %).
* **At worst** is the upper limit of how far an arm lies below the best of the others: Hsu 1981, 1984 (`at_worst`).

An image may stand for several rows that belong together (a group), and variance may be taken within strata: `Rows` is
the one place that decides this, and the formulas above are those of single images in one stratum. No variance is below
that of one right image for each arm, so no interval has width zero.

All but the reading of folds is "on these training images": one split cannot show what others would have done. What is
promised is simulated: `benchmarks/verdict_error_rates.py`, with a fast version among the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtrit

from transferlib.comparison.variance import Estimate, Rows, Spread, borrow, other_images, these_models, trained_again
from transferlib.names import MIN_SEEDS

if TYPE_CHECKING:
    import numpy.typing as npt

    from transferlib.comparison.variance import Cell, Floats

ALPHA = 0.05
"""Error rate over all pairs; single intervals are at 1 - ALPHA."""
MIN_CELLS = 3
"""Folds that a spread over folds takes: as many as one seed has at least."""
TINY = 1e-9
"""Least mean log-loss, nat, that has a logarithm."""


@dataclass(frozen=True, eq=False)
class ArmTable:
    """Hold the values of one arm.

    Attributes:
        arm: Its name.
        values: float64 [S, N], a row a seed, images in the same order for all arms.
        by_fold: Mean of the values by seed and fold; empty where images are cut once.
    """

    arm: str
    values: Floats
    by_fold: Mapping[Cell, float] = field(default_factory=dict)


def holm(p: Floats) -> Floats:
    """Return p values [..., P] that hold over all P of them. Source: Holm 1979."""
    order = np.argsort(p, axis=-1)
    scaled = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(scaled, axis=-1), 1), axis=-1)
    return adjusted


@dataclass(frozen=True)
class Interval:
    """Hold a value with its limits."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Inference:
    """Hold one reading of one difference: low and high are two-sided 95 % limits of it alone, p_holm is over all."""

    low: float
    high: float
    df: float
    p: float
    p_holm: float
    variance: float

    def negated(self) -> Inference:
        """Return the reading of the difference the other way round."""
        return replace(self, low=-self.high, high=-self.low)


@dataclass(frozen=True)
class PairStatement:
    """Say what is known of two arms."""

    a: str
    b: str
    difference: float
    """Mean of a minus mean of b."""
    num_discordant: int
    """Groups of images (single images are groups of one) whose mean values over seeds differ."""
    these_models: Inference
    if_trained_again: Inference | None
    """None where either arm has fewer than three seeds."""
    with_other_images: Inference | None = None
    """None where images are cut once."""

    def swapped(self) -> PairStatement:
        """Return the same of b minus a."""
        anew, others = self.if_trained_again, self.with_other_images
        return PairStatement(
            self.b,
            self.a,
            -self.difference,
            self.num_discordant,
            self.these_models.negated(),
            None if anew is None else anew.negated(),
            None if others is None else others.negated(),
        )

    @property
    def is_separated(self) -> bool:
        """Return whether training again would be told apart, over all pairs; never with fewer than three seeds."""
        return self.if_trained_again is not None and self.if_trained_again.p_holm < ALPHA


@dataclass(frozen=True)
class ArmStatement:
    """Say what is known of one arm."""

    arm: str
    num_seeds: int
    mean: float
    low: float
    """Limits that hold for all arms at once: of training again, and of these models with fewer than three seeds."""
    high: float
    seed_std: float | None
    """sqrt(max(0, (MSS - MSE) / N)): spread over seeds without the images' share; None with one seed."""
    at_worst: float | None
    """How much worse than the best of the others it may be, in the metric's units, over all arms with three seeds or
    more at once; None where it has fewer, or no other has as many."""
    versus_chance: Inference
    """Arm minus the constant predictor, over all arms."""
    has_learnt: bool
    """Better than the constant predictor, and separated from it."""


@dataclass(frozen=True)
class Judgement:
    """Hold all statements: arms in the order given, pairs as (0, 1), (0, 2), ..."""

    arms: tuple[ArmStatement, ...]
    pairs: tuple[PairStatement, ...]
    chance: Interval


def judge(
    tables: Sequence[ArmTable],
    rows: Rows,
    chance: Floats,
    *,
    lower_is_better: bool = False,
    is_share: bool = True,
    test_per_train: float = 0.0,
) -> Judgement:
    """Make every statement about these arms.

    Args:
        tables: The arms, over the same images in the same order; numbers of seeds may differ.
        rows: Which images belong together.
        chance: float64 [N], values of the constant predictor.
        lower_is_better: For log-loss.
        is_share: The metric lies between 0 and 1; else it is a loss, from 0 up.
        test_per_train: Images a fold is tested on for each one it is trained on.
    """
    own = [Spread.of(table.values, rows) for table in tables]
    spreads, constant = borrow(own, MIN_SEEDS), Spread.of(chance[None, :], rows)
    known = [index for index, spread in enumerate(spreads) if spread.num_seeds >= MIN_SEEDS]
    limits = at_worst([spreads[index] for index in known], rows, lower_is_better=lower_is_better, is_share=is_share)
    worst = {} if limits is None else dict(zip(known, limits.tolist(), strict=True))
    versus = [_best_reading(spread, constant) for spread in spreads]
    learnt = holm(np.array([found.p for found in versus]))
    sign = -1 if lower_is_better else 1
    arms = []
    for index, (table, spread) in enumerate(zip(tables, spreads, strict=True)):
        low, high = arm_interval(spread, rows, len(tables), is_share=is_share)
        statement = ArmStatement(
            arm=table.arm,
            num_seeds=spread.num_seeds,
            mean=float(spread.mean),
            low=float(low),
            high=float(high),
            seed_std=seed_std(own[index]),
            at_worst=worst.get(index),
            versus_chance=_inference(versus[index], learnt[index]),
            has_learnt=bool(sign * versus[index].value > 0 and learnt[index] < ALPHA),
        )
        arms.append(statement)
    of_chance = Interval(float(constant.mean), *file_interval(chance, rows, is_share=is_share))
    return Judgement(tuple(arms), _state_pairs(tables, spreads, rows, test_per_train), of_chance)


def at_worst(
    spreads: Sequence[Spread], rows: Rows, *, lower_is_better: bool = False, is_share: bool = True
) -> Floats | None:
    """Return U_i = max over j of the upper limit of m_j - m_i at 1 - ALPHA / (A - 1), float64 [A, ...].

    The limit is made of those of the two arms alone, with their correlation. m_j - m_i + t sqrt(V) called up to 7 % of
    arms good enough that were not (of log-losses 9 %): a worse arm that looks good has a variance that is too small as
    well. None where an arm has fewer than three seeds, or there is but one.

    Source: Hsu 1984, Constrained simultaneous confidence intervals for multiple comparisons with the best (here by
    Bonferroni, since variances differ); Newcombe 1998, method 10, Improved confidence intervals for the difference
    between binomial proportions based on paired data; Zou and Donner 2008.
    """
    if len(spreads) < 2 or not _is_known(*spreads):
        return None
    level = 1 - ALPHA / (len(spreads) - 1)
    limits = []
    for spread in spreads:
        others = [other for other in spreads if other is not spread]
        pairs = [(spread, other) if lower_is_better else (other, spread) for other in others]
        limits.append(np.max([_upper_limit(a, b, rows, level, is_share=is_share) for a, b in pairs], axis=0))
    return np.stack(limits)


def _upper_limit(a: Spread, b: Spread, rows: Rows, level: float, *, is_share: bool) -> Floats:
    """Return the upper limit of a - b if trained again."""
    gap, alone = trained_again(a, b), [trained_again(a), trained_again(b)]
    # Read with the degrees of freedom of the difference.
    limits = [_limits(found._replace(df=gap.df), rows, level, is_share=is_share) for found in alone]
    above, below = limits[0][1] - a.mean, b.mean - limits[1][0]
    variances = [found.variance for found in alone]
    correlation = np.clip((sum(variances) - gap.variance) / (2 * np.sqrt(variances[0] * variances[1])), -1, 1)
    square = np.square(above) + np.square(below) - 2 * correlation * above * below
    limit: Floats = gap.value + np.sqrt(np.maximum(square, 0))
    return limit


def arm_interval(spread: Spread, rows: Rows, num_arms: int, *, is_share: bool = True) -> tuple[Floats, Floats]:
    """Return limits of an arm's mean that hold for all arms at once (Bonferroni), float64 [...] each.

    Args:
        spread: The arm's; of several arms, as `variance.borrow` returns them.
        rows: Which images belong together.
        num_arms: A.
        is_share: As in `judge`.
    """
    return _limits(_best_reading(spread), rows, 1 - ALPHA / (2 * num_arms), is_share=is_share)


def file_interval(values: Floats, rows: Rows, *, is_share: bool = True) -> tuple[float, float]:
    """Return the 95 % limits of one model: Wilson's of k right of N, or at the effective number of images.

    Args:
        values: float64 [N], the model's.
        rows: Which images belong together.
        is_share: As in `judge`.
    """
    is_plain = rows.num_groups == len(values) and not rows.strata.any() and np.isin(values, (0, 1)).all()
    if is_share and is_plain:
        return wilson(float(values.mean()), len(values), float(ndtri(1 - ALPHA / 2)))
    low, high = _limits(these_models(Spread.of(values[None, :], rows)), rows, 1 - ALPHA / 2, is_share=is_share)
    return float(low), float(high)


def wilson(mean: float, num: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's limits of a share.

    Args:
        mean: The share seen, 0 to 1.
        num: Of how many, need not be whole.
        quantile: Of the normal or t distribution, as 1.96.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.
    """
    low, high = _wilson(*(np.asarray(number, np.float64) for number in (mean, num, quantile)))
    return float(low), float(high)


def _best_reading(a: Spread, b: Spread | None = None) -> Estimate:
    """Read an arm, alone or against a constant: trained again where it has the seeds for it."""
    return trained_again(a, b) if a.num_seeds >= MIN_SEEDS else these_models(a, b)


def _state_pairs(
    tables: Sequence[ArmTable], spreads: Sequence[Spread], rows: Rows, test_per_train: float
) -> tuple[PairStatement, ...]:
    pairs = list(combinations(range(len(tables)), 2))
    fixed = [these_models(spreads[i], spreads[j]) for i, j in pairs]
    anew = [trained_again(spreads[i], spreads[j]) if _is_known(spreads[i], spreads[j]) else None for i, j in pairs]
    others = [_with_other_images(tables, spreads, pair, test_per_train) for pair in pairs]
    discordant = [int(num_discordant(tables[i].values, tables[j].values, rows)) for i, j in pairs]
    least = [float(sign_bound(number)) for number in discordant]
    p_fixed, p_anew, p_others = (_over_all(readings, least) for readings in (fixed, anew, others))
    return tuple(
        PairStatement(
            a=tables[i].arm,
            b=tables[j].arm,
            difference=float(fixed[number].value),
            num_discordant=discordant[number],
            these_models=_inference(fixed[number], p_fixed[number], least[number]),
            if_trained_again=None
            if (found := anew[number]) is None
            else _inference(found, p_anew[number], least[number]),
            with_other_images=None
            if (found := others[number]) is None
            else _inference(found, p_others[number], least[number]),
        )
        for number, (i, j) in enumerate(pairs)
    )


def _over_all(readings: Sequence[Estimate | None], least: Sequence[float]) -> Floats:
    """Return p values over all pairs, none below the least one; a pair that cannot be read counts too: it comes last.

    Args:
        readings: Of the pairs.
        least: Smallest p value that each can have.
    """
    return holm(np.array([1.0 if one is None else max(one.p, p) for one, p in zip(readings, least, strict=True)]))


def _with_other_images(
    tables: Sequence[ArmTable], spreads: Sequence[Spread], pair: tuple[int, int], test_per_train: float
) -> Estimate | None:
    a, b = (tables[index].by_fold for index in pair)
    if len(a.keys() & b.keys()) < MIN_CELLS:
        return None
    return other_images(a, b, test_per_train, float(sum(spreads[index].floor for index in pair)))


def sign_bound(number: npt.ArrayLike) -> Floats:
    """Return the smallest two-sided p value that so many discordant images can give: all of them on one side.

    No p value is below it: a t test on a handful of images that differ would be. Source: the exact sign test.
    """
    bound: Floats = np.minimum(1.0, 2.0 ** (1.0 - np.asarray(number)))
    return bound


def _is_known(*spreads: Spread) -> bool:
    return min(spread.num_seeds for spread in spreads) >= MIN_SEEDS


def num_discordant(a: Floats, b: Floats, rows: Rows) -> npt.NDArray[np.int64]:
    """Return how many groups of images (single ones are groups of one) have mean values over seeds that differ, [...].

    Args:
        a: Values of one arm, [..., S, N].
        b: Of the other; seeds may be fewer or more.
        rows: Which images belong together.
    """
    gaps = rows.sum_by_group(a.mean(axis=-2) - b.mean(axis=-2))
    return np.asarray(np.count_nonzero(~np.isclose(gaps, 0, atol=1e-9), axis=-1))


def seed_std(spread: Spread) -> float | None:
    """Return the spread of an arm's mean over seeds without the images' share, sqrt(max(0, (MSS - MSE) / N))."""
    return None if spread.num_seeds < 2 else seed_variance(spread) ** 0.5


def seed_variance(spread: Spread) -> float:
    """Return the variance of an arm's mean over seeds without the images' share, max(0, (MSS - MSE) / N)."""
    return max(0.0, float(spread.between_seeds - spread.noise))


def _limits(found: Estimate, rows: Rows, level: float, *, is_share: bool) -> tuple[Floats, Floats]:
    """Return limits of a mean: Wilson's of a share, symmetric ones of a loss's logarithm."""
    if is_share:
        return _wilson(found.value, found.effective_images(rows.num_groups), stdtrit(found.df, level))
    factor = np.exp(np.minimum(found.margin(level) / np.maximum(found.value, TINY), 100))
    return found.value / factor, np.maximum(found.value, TINY) * factor


def _wilson(mean: Floats, num: Floats, quantile: Floats) -> tuple[Floats, Floats]:
    share, square = np.clip(mean, 0, 1), np.square(quantile) / num
    centre = (share + square / 2) / (1 + square)
    margin = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    # At 0 and 1 the limits are exact but for rounding.
    return np.clip(np.minimum(centre - margin, share), 0, 1), np.clip(np.maximum(centre + margin, share), 0, 1)


def _inference(found: Estimate, p_holm: float, least_p: float = 0.0) -> Inference:
    margin = found.margin(1 - ALPHA / 2)
    return Inference(
        low=float(found.value - margin),
        high=float(found.value + margin),
        df=float(found.df),
        p=max(float(found.p), least_p),
        p_holm=float(p_holm),
        variance=float(found.variance),
    )
