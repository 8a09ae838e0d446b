"""Whether a model's confidence can be believed, and the temperature that would mend it."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from transferlib.comparison.leaderboard import Comparison
from transferlib.comparison.results import read_arm_predictions
from transferlib.evaluation.metrics import (
    CalibrationBins,
    Scores,
    calibration_bins,
    metrics_of_scores,
    score_images,
)
from transferlib.evaluation.predictions import Predictions, read_predictions
from transferlib.runs import RunFolder

TEMPERATURES = (0.05, 20.0)
"""Where the best one is looked for; a model that makes no mistake on validation would have none above 0."""
_HALVINGS = 50


@dataclass(frozen=True)
class SeedCalibration:
    """Hold one training's calibration on the split that is reported; where there are folds, over those of one seed."""

    temperature: float | None
    """Fitted on validation (mean over folds); None where nothing but validation was read, on which it would flatter
    itself."""
    ece: float
    ece_with: float | None
    """With the temperature."""
    log_loss: float
    log_loss_with: float | None


@dataclass(frozen=True)
class ArmCalibration:
    """Hold the calibration of one arm: means over its seeds, and all their images by confidence."""

    arm: str
    number: int
    """Of its colour."""
    by_seed: dict[int, SeedCalibration]
    bins: CalibrationBins
    """Over all seeds."""

    def to_plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        bins = {name: column.tolist() for name, column in self.bins._asdict().items()}
        trials = {str(seed): dataclasses.asdict(found) for seed, found in self.by_seed.items()}
        return {"arm": self.arm, "by_seed": trials, "bins": bins}

    def mean(self, name: str) -> float | None:
        """Return the mean over seeds of a field of `SeedCalibration`; None where a seed has none."""
        values = [getattr(found, name) for found in self.by_seed.values()]
        return None if None in values else statistics.fmean(values)


def fit_temperature(labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> float:
    """Return the temperature T that makes softmax(logits / T) likeliest, within `TEMPERATURES`.

    The mean log-loss is convex in 1/T, so the sign of its slope says on which side the best lies.

    Args:
        labels: int64 [N], 0 to K - 1.
        logits: float [N, K], finite.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    of_label = shifted[np.arange(len(labels)), labels].mean()
    coldest, warmest = TEMPERATURES
    low, high = np.log(1 / warmest), np.log(1 / coldest)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        weights = np.exp(shifted * np.exp(middle))
        expected = ((weights * shifted).sum(axis=1) / weights.sum(axis=1)).mean()
        low, high = (low, middle) if expected > of_label else (middle, high)
    return float(np.exp(-(low + high) / 2))


def chosen_predictions(
    run: RunFolder, comparison: Comparison, shown: Collection[str]
) -> Iterator[tuple[Predictions, Predictions | None]]:
    """Yield chosen trials' predictions on validation and, once it was read, on test.

    Args:
        run: A finished run's come from `predictions.parquet`, an unfinished one's from its trials.
        comparison: Names the chosen trials.
        shown: Those of them that are wanted.
    """
    ids = [trial_id for trial_id in comparison.choice.trial_ids if trial_id in shown]
    if not comparison.is_final:
        yield from ((val, None) for val in read_arm_predictions(run, ids, "val"))
        return
    val: Predictions | None = None
    for table in read_predictions(run.predictions):
        if table.source.key.id not in ids:
            continue
        if table.source.split == "val":
            val = table  # a trial's test follows its validation: the file is in that order
        elif val is not None and val.source.key == table.source.key:
            yield val, table


def calibrate(tables: Iterable[tuple[Predictions, Predictions | None]], arms: Sequence[str]) -> list[ArmCalibration]:
    """Return each arm's calibration, in the order of the arms.

    Args:
        tables: As `chosen_predictions` yields them.
        arms: All, in the order of their colours.
    """
    trials: dict[str, dict[int, list[_Tempered]]] = {}
    for val, test in tables:
        key = val.source.key
        trials.setdefault(key.arm, {}).setdefault(key.seed, []).append(_temper(val, test))
    return [
        ArmCalibration(
            arm,
            arms.index(arm),
            {seed: _calibrate(folds) for seed, folds in sorted(trials[arm].items())},
            calibration_bins(_join([fold.before for folds in trials[arm].values() for fold in folds])),
        )
        for arm in arms
        if arm in trials
    ]


class _Tempered(NamedTuple):
    """Hold one trial's images, as they are and with the temperature."""

    labels: npt.NDArray[np.int64]
    num_classes: int
    temperature: float | None
    before: Scores
    after: Scores | None


def _temper(val: Predictions, test: Predictions | None) -> _Tempered:
    shown = test or val
    before = score_images(shown.labels, shown.logits)
    if test is None:
        return _Tempered(shown.labels, len(shown.classes), None, before, None)
    temperature = fit_temperature(val.labels, val.logits)
    after = score_images(test.labels, (test.logits / temperature).astype(np.float32))
    return _Tempered(shown.labels, len(shown.classes), temperature, before, after)


def _calibrate(folds: Sequence[_Tempered]) -> SeedCalibration:
    labels, num_classes = np.concatenate([fold.labels for fold in folds]), folds[0].num_classes
    before = metrics_of_scores(labels, _join([fold.before for fold in folds]), num_classes)
    temperatures = [fold.temperature for fold in folds if fold.temperature is not None]
    if len(temperatures) < len(folds):
        return SeedCalibration(None, before.ece, None, before.log_loss, None)
    after = metrics_of_scores(labels, _join([fold.after for fold in folds if fold.after is not None]), num_classes)
    return SeedCalibration(statistics.fmean(temperatures), before.ece, after.ece, before.log_loss, after.log_loss)


def _join(scores: Sequence[Scores]) -> Scores:
    return Scores(*(np.concatenate(column) for column in zip(*scores, strict=True)))
