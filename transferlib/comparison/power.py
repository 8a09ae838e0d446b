"""What a comparison can show: the smallest difference beforehand, and afterwards what would tell two arms apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import nctdtrinc, stdtrit

from transferlib.comparison.statistics import ALPHA, ArmTable, seed_variance
from transferlib.comparison.variance import Rows, Spread, borrow, satterthwaite, these_models
from transferlib.names import MIN_SEEDS

if TYPE_CHECKING:
    import numpy.typing as npt

    from transferlib.comparison.variance import Floats

POWER = 0.8
"""How often a difference that can be detected is found."""
_STEPS = 20
"""Of a fixed point that five steps reach to a thousandth."""
MOST_SEEDS, MIN_IMAGES, MOST_TIMES_IMAGES = 30, 10, 20
"""Where `what_it_takes` looks: seeds, images, and times the images there are."""


@dataclass(frozen=True)
class Needs:
    """Say what would separate two arms; None: not within 30 seeds, or 20 times the images."""

    seeds: int | None
    images: int | None


def what_it_takes(a: ArmTable, b: ArmTable, rows: Rows, num_pairs: int) -> Needs:
    """Return the fewest seeds an arm (with these images), and the fewest images (with these seeds), to separate.

    Variance at N' images and S' seeds: max(0, V_f - sum MSE / (N S)) N / N' + sum [MSE / (N' S') + max(0, (MSS - MSE) /
    N) / S']; the difference is taken to stay as it was seen. Say "about": the quartiles of both numbers are wide.

    Args:
        a: One arm.
        b: The other. With one seed of either, the spread over seeds is not known, and neither number is.
        rows: Which images belong together.
        num_pairs: Of the comparison.
    """
    spreads = borrow([Spread.of(table.values, rows) for table in (a, b)], MIN_SEEDS)
    counts = [spread.num_seeds for spread in spreads]
    if min(counts) < 2:
        return Needs(None, None)
    level = 1 - ALPHA / (2 * num_pairs)
    seeds = np.arange(MIN_SEEDS, MOST_SEEDS + 1)
    enough_seeds = seeds[_is_enough(spreads, np.ones(len(seeds)), [seeds, seeds], level)]
    num_images = len(rows.groups)
    images = np.unique(np.geomspace(MIN_IMAGES, MOST_TIMES_IMAGES * num_images, 1000).round())
    enough_images = images[:0]
    if min(counts) >= MIN_SEEDS:
        enough_images = images[_is_enough(spreads, images / num_images, counts, level)]
    return Needs(*(int(enough[0]) if enough.size else None for enough in (enough_seeds, enough_images)))


def _is_enough(
    spreads: Sequence[Spread], times: Floats, num_seeds: Sequence[npt.NDArray[np.int64] | int], level: float
) -> npt.NDArray[np.bool_]:
    """Return where the difference seen is separated with so many times the images, and so many seeds of each arm."""
    fixed = these_models(*spreads)
    noise = sum(float(spread.noise) / spread.num_seeds for spread in spreads)
    of_seeds = [
        (spread.noise / times + seed_variance(spread)) / count for spread, count in zip(spreads, num_seeds, strict=True)
    ]
    floor = sum(float(spread.floor) for spread in spreads) / np.square(times)
    of_images = np.maximum(max(float(fixed.variance) - noise, 0.0) / times, floor - sum(of_seeds))
    parts = [(of_images, spreads[0].df * times)]
    parts += [(variance, np.asarray(count) - 1) for variance, count in zip(of_seeds, num_seeds, strict=True)]
    found = satterthwaite(np.full_like(times, fixed.value), parts)
    return np.abs(found.value) > found.margin(level)


def detectable_difference(
    num_images: int,
    num_seeds: int,
    num_arms: int,
    *,
    accuracy: float = 0.9,
    seed_std: float = 0.015,
    disagreement: float = 0.5,
    arm_disagreement: float = 0.8,
) -> float:
    """Return the smallest true difference of two arms that is found four times of five.

    The variance of one difference is what `trained_again` is expected to find (`these_models` with fewer than three
    seeds), power that of the noncentral t at the level of Bonferroni over all pairs. The worse arm errs more by what is
    looked for, which adds to the variance: as if a quarter of it were errors of both, as simulated tables show.

    Args:
        num_images: Of test.
        num_seeds: S.
        num_arms: A.
        accuracy: Expected of the better arm.
        seed_std: Spread of an arm's accuracy over seeds, in shares.
        disagreement: Images on which two seeds of an arm differ, as a share of the errors.
        arm_disagreement: Images on which two arms differ, as a share of the errors; at least `disagreement`.

    Source: the defaults are regime M of `benchmarks/verdict_error_rates.py`.
    """
    # Of few images the formula asks more of more seeds, which cannot be: what fewer seeds show, more show too.
    counts = {*range(MIN_SEEDS, min(num_seeds, MOST_SEEDS)), num_seeds}
    shares = (accuracy, seed_std, disagreement, arm_disagreement)
    return min(_detectable(num_images, count, num_arms, *shares) for count in counts)


def _detectable(
    num_images: int,
    num_seeds: int,
    num_arms: int,
    accuracy: float,
    seed_std: float,
    disagreement: float,
    arm_disagreement: float,
) -> float:
    seed_variance = seed_std**2 if num_seeds >= MIN_SEEDS else 0.0
    seed_df = num_seeds - 1 if num_seeds >= MIN_SEEDS else num_images - 1
    level = 1 - ALPHA / max(num_arms * (num_arms - 1), 2)
    gap = 0.0
    for _ in range(_STEPS):
        errors = 1 - accuracy + gap / 4
        of_seed = (disagreement * errors / 2 / num_images + seed_variance) / num_seeds
        of_images = max((arm_disagreement - disagreement) * errors / num_images, 2 / num_images**2 - 2 * of_seed, 0.0)
        parts = [(of_images, num_images - 1), (of_seed, seed_df), (of_seed, seed_df)]
        found = satterthwaite(np.zeros(()), [(np.asarray(variance), df) for variance, df in parts])
        gap = float(nctdtrinc(found.df, 1 - POWER, stdtrit(found.df, level)) * np.sqrt(found.variance))
    return gap
