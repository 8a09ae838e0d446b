"""Two ways to spend ten trials an arm on two rates: for each of five seeds both, or both for two seeds and then the
better one for six more. A section of `verdict_error_rates.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from prediction_tables import REGIMES, Regime
from scipy.special import ndtr
from verdict_rules import Answers, read

from transferlib.comparison.power import detectable_difference
from transferlib.comparison.variance import Rows

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

NUM_TEST = 300
TUNING_SEEDS = 2
WAYS = {
    "each seed: 10 trials, 5 seeds": (5, False),
    "first: 10 trials, 8 seeds": (8, True),
    "first: 7 trials, 5 seeds": (5, True),
}
"""Seeds an arm, and whether the rate is chosen on the first two of them."""
SHARED_SEED_EFFECT = 0.5
"""Share of a seed's variance that both rates have in common: the head's start and the order of images are the same."""
ROWS_HEADER = (
    *("worse rate is worse by, points (arm a / b)", "val images", "way", "better rate taken, %"),
    *("mean true accuracy of arms, %", "of the model handed over, %", "a - b, points", "true seed sd, points"),
    *("false separations, %", "pair covered, %", "found of 2 points, %", "detectable, points"),
)
SUMMARY_HEADER = (
    *("way", "arms' accuracy over the first way's, points: mean", "least", "that of the model: mean"),
    *("false separations, %: mean", "most", "found of 2 points, %: mean"),
)


@dataclass(frozen=True, eq=False)
class Trials:
    """Hold R repetitions of two arms, S seeds and 2 rates, the better rate first.

    Attributes:
        val: float64 [R, 2, S, 2], accuracies on validation.
        test: bool [R, 2, S, 2, N], right or not.
        truth: float64 [R, 2, S, 2], true accuracies of models.
    """

    val: Floats
    test: npt.NDArray[np.bool_]
    truth: Floats


def draw_trials(
    regime: Regime,
    gap: float,
    rate_gaps: tuple[float, float],
    num_val: int,
    num_repetitions: int,
    generator: np.random.Generator,
) -> Trials:
    """Draw trials of two arms, of which the first is better by the gap at its better rate."""
    num_seeds = max(seeds for seeds, _ in WAYS.values())
    size, num_images = (num_repetitions, 2, num_seeds), num_val + NUM_TEST
    accuracies = np.array([regime.accuracy + gap / 2, regime.accuracy - gap / 2])
    mus = [[regime.mu(arm, accuracies[arm]), regime.mu(arm, accuracies[arm] - rate_gaps[arm])] for arm in range(2)]
    common = np.sqrt(SHARED_SEED_EFFECT) * generator.standard_normal((*size, 1))
    own = np.sqrt(1 - SHARED_SEED_EFFECT) * generator.standard_normal((*size, 2))
    sigmas = np.array([regime.sigma(arm) for arm in range(2)])
    means = np.array(mus)[:, None, :] + sigmas[:, None, None] * (common + own)
    of_image, of_arm, of_seed = (np.float32(np.sqrt(share)) for share in regime.shares)
    shared = of_image * generator.standard_normal((num_repetitions, 1, num_images), np.float32)
    shared = shared + of_arm * generator.standard_normal((num_repetitions, 2, num_images), np.float32)
    latent = of_seed * generator.standard_normal((*size, 2, num_images), np.float32)
    latent += shared[:, :, None, None, :]
    is_right = latent > -means[..., None].astype(np.float32)
    return Trials(is_right[..., :num_val].mean(axis=-1), is_right[..., num_val:], ndtr(means))


def choose_rates(trials: Trials, way: str, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the index of the rate taken, int64 [R, 2, S]; ties are drawn."""
    num_seeds, is_first = WAYS[way]
    scores = trials.val + generator.uniform(0, 1e-9, trials.val.shape)
    if not is_first:
        each: npt.NDArray[np.int64] = scores[:, :, :num_seeds].argmax(axis=-1)
        return each
    taken = scores[:, :, :TUNING_SEEDS].mean(axis=2).argmax(axis=-1)
    return np.broadcast_to(taken[..., None], (*taken.shape, num_seeds))


class Outcome(NamedTuple):
    """Hold means over repetitions, as shares; of arms that are equal unless it says otherwise."""

    better_rate: float
    arms: float
    """True accuracy of the models of an arm."""
    model: float
    """True accuracy of the model handed over, of both arms."""
    difference: float
    seed_variance: float
    false: float
    covered: float
    found: float
    """Where one arm is 2 points better."""

    def cells(self, num_seeds: int, *, is_null: bool) -> list[str]:
        """Return cells of the table; what presumes equal arms only where they are."""
        tested = (f"{100 * self.false:.1f}", f"{100 * self.covered:.1f}", f"{100 * self.found:.0f}")
        return [
            f"{100 * self.better_rate:.0f}",
            f"{100 * self.arms:.2f}",
            f"{100 * self.model:.2f}",
            f"{100 * self.difference:+.2f}",
            f"{100 * self.seed_variance**0.5:.2f}",
            *(tested if is_null else ("-",) * 3),
            f"{100 * detectable_difference(NUM_TEST, num_seeds, 2):.1f}",
        ]


RATE_GAPS = ((0.0, 0.0), (0.01, 0.01), (0.03, 0.03), (0.10, 0.10), (0.03, 0.0))
NUMS_VAL = (60, 150, 300, 1000)


def measure_tuning(num_repetitions: int, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of the table and of its summary, in regime M."""
    rows: list[list[str]] = []
    equal: dict[str, list[Outcome]] = {way: [] for way in WAYS}
    for rate_gaps in RATE_GAPS:
        is_null = rate_gaps[0] == rate_gaps[1]
        for num_val in NUMS_VAL:
            generator = np.random.default_rng([seed, num_val, *(round(1000 * gap) for gap in rate_gaps)])
            found = _measure(REGIMES["M"], rate_gaps, num_val, num_repetitions, generator)
            gaps = " / ".join(f"{100 * gap:g}" for gap in rate_gaps)
            for way, outcome in found.items():
                rows.append([gaps, str(num_val), way, *outcome.cells(WAYS[way][0], is_null=is_null)])
                equal[way] += [outcome] if is_null else []
    return rows, [_summary(way, outcomes, equal[next(iter(WAYS))]) for way, outcomes in equal.items()]


def _summary(way: str, outcomes: Sequence[Outcome], first: Sequence[Outcome]) -> list[str]:
    arms = [100 * (outcome.arms - other.arms) for outcome, other in zip(outcomes, first, strict=True)]
    models = [100 * (outcome.model - other.model) for outcome, other in zip(outcomes, first, strict=True)]
    false = [100 * outcome.false for outcome in outcomes]
    found = [100 * outcome.found for outcome in outcomes]
    numbers = (f"{np.mean(arms):+.2f}", f"{min(arms):+.2f}", f"{np.mean(models):+.2f}")
    return [way, *numbers, f"{np.mean(false):.1f}", f"{max(false):.1f}", f"{np.mean(found):.0f}"]


def _measure(
    regime: Regime,
    rate_gaps: tuple[float, float],
    num_val: int,
    num_repetitions: int,
    generator: np.random.Generator,
) -> dict[str, Outcome]:
    sums: dict[str, list[Floats]] = {way: [] for way in WAYS}
    size = max(1, 2**24 // (32 * (num_val + NUM_TEST)))
    for start in range(0, num_repetitions, size):
        number = min(size, num_repetitions - start)
        equal = draw_trials(regime, 0.0, rate_gaps, num_val, number, generator)
        better = draw_trials(regime, 0.02, rate_gaps, num_val, number, generator)
        for way in WAYS:
            taken = choose_rates(equal, way, generator)
            truth, values, val = _of_rate(equal, taken)
            rows = Rows.of(NUM_TEST)
            reading = read(Answers.of(values, rows), rows)
            best = (val + generator.uniform(0, 1e-9, val.shape)).reshape(number, -1).argmax(axis=1)
            others = _of_rate(better, choose_rates(better, way, generator))[1]
            other = read(Answers.of(others, rows), rows)
            columns = [
                (taken == 0).mean(axis=(1, 2)),
                truth.mean(axis=(1, 2)),
                truth.reshape(number, -1)[np.arange(number), best],
                truth[:, 0].mean(axis=-1) - truth[:, 1].mean(axis=-1),
                truth.var(axis=-1, ddof=1).mean(axis=-1),
                reading.separated[:, 0] != 0,
                (reading.pairs[0, :, 0] <= 0) & (reading.pairs[1, :, 0] >= 0),
                other.separated[:, 0] > 0,
            ]
            sums[way].append(np.stack([np.asarray(column, np.float64) for column in columns]))
    return {way: Outcome(*np.concatenate(parts, axis=1).mean(axis=1).tolist()) for way, parts in sums.items()}


def _of_rate(trials: Trials, taken: npt.NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Return truth [R, 2, S], test values [R, 2, S, N] and validation accuracies [R, 2, S] at the rates taken."""
    num_seeds = taken.shape[-1]
    truth = np.take_along_axis(trials.truth[:, :, :num_seeds], taken[..., None], axis=3)[..., 0]
    val = np.take_along_axis(trials.val[:, :, :num_seeds], taken[..., None], axis=3)[..., 0]
    values = np.take_along_axis(trials.test[:, :, :num_seeds], taken[..., None, None], axis=3)[..., 0, :]
    return truth, values.astype(np.float64), val
