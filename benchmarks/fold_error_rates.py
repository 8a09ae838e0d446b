"""Measure how often the readings of a comparison over folds are wrong, on real experiments whose truth is known.

    python benchmarks/fold_error_rates.py --write docs/benchmarks/...md

Each repetition draws N labelled points of two classes, cuts them into K folds anew for each seed, as `--folds K` does,
trains two classifiers on each fold and judges their answers by `comparison.statistics`. The arms look at two blocks of
features that are alike in distribution, so over training sets neither is better; on one training set either may be,
most of all where the learner is unstable. "Better" is a false claim of the procedure, then. One process, one core.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from measuring import machine_line, table
from scipy.special import ndtr

from transferlib.comparison.statistics import ALPHA, ArmTable, PairStatement, judge
from transferlib.comparison.variance import Rows
from transferlib.data.components import find_components
from transferlib.data.folds import Folds
from transferlib.names import SPLITS

Floats = npt.NDArray[np.float64]

NUM_FEATURES = 10
"""Of each arm's block."""
DISTANCE = 0.45
"""Of a class's mean from the origin in each feature, in standard deviations: the best accuracy there is, is 0.92."""
KEPT = 0.7
"""Share of its training points that a seed keeps: what differs from seed to seed."""
NUMS_POINTS, NUMS_SEEDS, NUMS_FOLDS = (60, 150, 400), (1, 3, 5), (5, 10)
LEARNERS = ("nearest mean", "nearest neighbour")
"""A stable one and an unstable one."""
WORSE_DISTANCE = 0.30
"""Of the second arm's block, where it is truly worse."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """Hold one comparison of two arms and what its trained models truly reach.

    Attributes:
        values: float64 [2, S, N], 1 where a model is right.
        by_fold: Of each arm, as `ArmTable` has it.
        accuracies: float64 [2, S, K], of the trained models, on all points there could be; of nearest means only.
        test_per_train: Points a fold is tested on for each one that is trained on.
    """

    values: Floats
    by_fold: tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]
    accuracies: Floats
    test_per_train: float

    def judged(self) -> PairStatement:
        """Return what is said of the two arms."""
        tables = [ArmTable(name, self.values[arm], self.by_fold[arm]) for arm, name in enumerate("ab")]
        num_points = self.values.shape[-1]
        chance = np.zeros(num_points)
        chance[::2] = 1
        return judge(tables, Rows.of(num_points), chance, test_per_train=self.test_per_train).pairs[0]


def run_experiment(
    learner: str,
    num_points: int,
    num_seeds: int,
    num_folds: int,
    distances: tuple[float, float],
    generator: np.random.Generator,
) -> Experiment:
    """Draw points, train both arms over all folds and seeds, and test them.

    Args:
        learner: One of `LEARNERS`.
        num_points: N.
        num_seeds: S.
        num_folds: K.
        distances: Of the class means, in each arm's features.
        generator: Draws points and what the seeds do.
    """
    labels = np.arange(num_points) % 2
    signs = 2 * labels - 1
    blocks = [generator.normal(0, 1, (num_points, NUM_FEATURES)) + distance * signs[:, None] for distance in distances]
    components = find_components([str(point) for point in range(num_points)], [None] * num_points)
    folds = Folds(num_folds, seed=int(generator.integers(2**31)))
    values = np.zeros((2, num_seeds, num_points))
    accuracies = np.zeros((2, num_seeds, num_folds))
    by_fold: tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]] = ({}, {})
    num_train = 0
    for seed in range(num_seeds):
        parts = folds.parts(components, labels.astype(np.int64), ("no", "yes"), seed)
        for fold in range(1, num_folds + 1):
            splits = folds.splits(parts, fold)
            train, test = (np.flatnonzero(splits == SPLITS.index(name)) for name in ("train", "test"))
            num_train = len(train)
            kept = generator.permutation(train)[: round(KEPT * num_train)]
            for arm, (block, distance) in enumerate(zip(blocks, distances, strict=True)):
                if learner == "nearest mean":
                    weights = (signs[kept][:, None] * block[kept]).mean(axis=0)
                    is_right = signs[test] * (block[test] @ weights) > 0
                    accuracies[arm, seed, fold - 1] = ndtr(distance * weights.sum() / np.linalg.norm(weights))
                else:
                    is_right = _nearest(block[kept], signs[kept], block[test]) == signs[test]
                values[arm, seed, test] = is_right
                by_fold[arm][seed, fold] = float(is_right.mean())
    return Experiment(values, by_fold, accuracies, num_points / num_folds / num_train)


def _nearest(points: Floats, signs: npt.NDArray[np.int64], asked: Floats) -> npt.NDArray[np.int64]:
    distances = np.square(points).sum(axis=1) - 2 * asked @ points.T  # the asked point's own square changes no order
    nearest: npt.NDArray[np.int64] = signs[distances.argmin(axis=1)]
    return nearest


def measure(
    learner: str,
    num_points: int,
    num_seeds: int,
    num_folds: int,
    num_repetitions: int,
    generator: np.random.Generator,
) -> dict[str, float]:
    """Return shares by name, over repetitions of arms that are alike and of one that is worse.

    Args:
        learner: One of `LEARNERS`.
        num_points: N.
        num_seeds: S.
        num_folds: K.
        num_repetitions: Of either.
        generator: Draws everything.
    """
    found: dict[str, list[float]] = {}
    alike = [
        run_experiment(learner, num_points, num_seeds, num_folds, (DISTANCE, DISTANCE), generator)
        for _ in range(num_repetitions)
    ]
    unlike = [
        run_experiment(learner, num_points, num_seeds, num_folds, (DISTANCE, WORSE_DISTANCE), generator)
        for _ in range(num_repetitions)
    ]
    is_exact = learner == "nearest mean"
    of_unlike = [one.accuracies[0] - one.accuracies[1] if is_exact else one.values[0] - one.values[1] for one in unlike]
    true_gap = float(np.mean([gap.mean() for gap in of_unlike]))
    for experiments, truth in ((alike, 0.0), (unlike, true_gap)):
        for one in experiments:
            pair = one.judged()
            others, anew, fixed = pair.with_other_images, pair.if_trained_again, pair.these_models
            assert others is not None
            of_models = float(one.accuracies[0].mean() - one.accuracies[1].mean())
            name = "false" if truth == 0 else "found"
            found.setdefault(f"{name}, other images", []).append(others.p_holm < ALPHA)
            if anew is not None:
                found.setdefault(f"{name}, trained again", []).append(anew.p_holm < ALPHA)
            found.setdefault("covered, other images", []).append(others.low <= truth <= others.high)
            if is_exact:
                found.setdefault("covered, these models", []).append(fixed.low <= of_models <= fixed.high)
    return {**{name: float(np.mean(shares)) for name, shares in found.items()}, "gap": true_gap}


COLUMNS = (
    ("claims that other training images would not bear out, %", "false, other images"),
    ("the same of the reading on these images, %", "false, trained again"),
    ("covered, other images, %", "covered, other images"),
    ("covered, these models, %", "covered, these models"),
    ("found where one is worse, %", "found, other images"),
    ("found on these images, %", "found, trained again"),
)
"""Title and name of each column."""


def main() -> None:
    """Measure, print and perhaps write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="file to write the page to")
    options = parser.parse_args()
    begun, rows = time.monotonic(), []
    settings = product(range(len(LEARNERS)), NUMS_FOLDS, NUMS_POINTS, NUMS_SEEDS)
    for number, num_folds, num_points, num_seeds in settings:
        generator = np.random.default_rng([options.seed, number, num_folds, num_points, num_seeds])
        shares = measure(LEARNERS[number], num_points, num_seeds, num_folds, options.repetitions, generator)
        cells = [f"{100 * shares[name]:.1f}" if name in shares else "-" for _, name in COLUMNS]
        rows.append([LEARNERS[number], num_folds, num_points, num_seeds, *cells, f"{100 * shares['gap']:.1f}"])
        print(*rows[-1], flush=True)
    header = ["learner", "folds", "images", "seeds", *(title for title, _ in COLUMNS), "points by which it is worse"]
    page = "\n".join(
        [
            "# How often a comparison over folds is wrong",
            "",
            "Two arms, alike but for chance (left) or one truly worse (right): real trainings of small classifiers, "
            "cut into folds by the project's own code and judged by `comparison.statistics`. The nearest neighbour is "
            "an unstable learner: of two arms alike over training sets, one is often truly better on these, and the "
            "reading on these images says so.",
            "",
            table(header, rows),
            "",
            f"{options.repetitions} repetitions of each. {machine_line()} {time.monotonic() - begun:.0f} s, one core.",
            "",
        ]
    )
    print(page)
    if options.write:
        options.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
