"""What a run folder holds of its trials: how each ended, and what its predictions come to."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from transferlib.comparison.tuning import Tuning
from transferlib.comparison.variance import Rows
from transferlib.data.components import find_components
from transferlib.data.images import ImageTable
from transferlib.data.manifest import Manifest
from transferlib.errors import DataError
from transferlib.evaluation.image_values import image_values, strata_of
from transferlib.evaluation.metrics import Metrics, compute_metrics, score_images
from transferlib.evaluation.predictions import Predictions, read_predictions
from transferlib.names import METRICS
from transferlib.records import FINISHED, TrialResult, TrialSpec
from transferlib.runs import RunFolder
from transferlib.spec import JobSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SplitImages:
    """Hold what is known of the images of one split, N of them, in the manifest's order."""

    image_ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    """[N], equal for images that belong together: of one group, or of the same content."""
    constant: npt.NDArray[np.float32]
    """[N, K], logits of the predictor that looks at no image: the classes' shares in train."""

    def rows(self, metric: str) -> Rows:
        """Return which images belong together, for a metric's inference."""
        return Rows.of(len(self.labels), self.groups, strata_of(metric, self.labels))

    def chance(self, metric: str) -> Floats:
        """Return the constant predictor's values of a metric, [N]."""
        return image_values(metric, self.labels, self.constant)


@dataclass(frozen=True, eq=False)
class TrialScores:
    """Hold what one trial's predictions on one split come to."""

    metrics: Metrics
    values: Mapping[str, Floats]
    """By metric of `names.METRICS`: [N], whose mean is the metric; empty where they were not asked for."""
    predicted: npt.NDArray[np.int64]
    """[N], predicted class; empty likewise."""
    confidence: Floats
    """[N], softmax probability of the predicted class; empty likewise."""


@dataclass(frozen=True)
class RunResults:
    """Hold a run's trials and what came of them."""

    run_id: str
    spec: JobSpec
    trials: tuple[TrialSpec, ...]
    """All that were planned."""
    results: Mapping[str, TrialResult]
    """How trials ended, by trial id."""
    scores: Mapping[tuple[str, str], TrialScores]
    """By trial id and split."""
    classes: tuple[str, ...]
    splits: Mapping[str, SplitImages]
    """Of val and test."""
    num_train_images: int

    @property
    def metric(self) -> str:
        """Return what chooses, ranks and is tested."""
        return self.spec.comparison.decided_metric

    @property
    def metrics(self) -> Mapping[tuple[str, str], Metrics]:
        """Return the metrics by trial id and split."""
        return {key: scores.metrics for key, scores in self.scores.items()}

    @property
    def num_trained(self) -> int:
        """Return how many trials are trained, as far as is known: those whose rate another one beat are not."""
        return len(self._expected)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Return those of them that are neither done nor failed; of a seed whose rate is not decided, any one."""
        ids = (trial.trial_id for trial in self._expected)
        return tuple(i for i in ids if i not in self.results or self.results[i].state not in FINISHED)

    @property
    def _expected(self) -> tuple[TrialSpec, ...]:
        return Tuning(self.trials, self.spec.comparison.tuning_seeds).expected(self.results)


def planned_trials(run: RunFolder) -> tuple[TrialSpec, ...]:
    """Return every trial of a run's plan, in its order."""
    return tuple(TrialSpec.from_plain(trial) for trial in json.loads(run.plan.read_text())["trials"])


def read_results(run: RunFolder, splits: Sequence[str]) -> RunResults:
    """Read the trials' own files, finished or not.

    Args:
        run: Holds plan, manifest and trials.
        splits: Whose predictions to read: val, or val and test.

    Raises:
        DataError: A finished trial's validation predictions are missing, or a table is not the manifest's images.
    """
    trials = planned_trials(run)
    results = _read_trial_results(run, trials)

    def tables() -> Iterator[Predictions]:
        for trial_id, result in results.items():
            for split in splits:
                path = run.trial(trial_id).predictions(split)
                if result.state == "done" and (split == "val" or path.exists()):
                    yield Predictions.load(path)

    return _gather(run, trials, results, tables(), None)


def read_final_results(run: RunFolder, chosen: Collection[str]) -> RunResults:
    """Read a finished run: everything comes from `predictions.parquet`.

    Args:
        run: Holds plan, manifest, trials and predictions.
        chosen: Trials whose values are wanted image by image.

    Raises:
        DataError: It is missing, is not the manifest's images, or lacks a trial that is done.
    """
    trials = planned_trials(run)
    results = _read_trial_results(run, trials)
    found = _gather(run, trials, results, read_predictions(run.predictions), chosen)
    lost = [i for i, result in results.items() if result.state == "done" and (i, "val") not in found.scores]
    if lost:
        raise DataError(f"{run.predictions} lacks {len(lost)} trials that are done: {', '.join(lost[:3])}.")
    return found


def read_arm_predictions(run: RunFolder, trial_ids: Sequence[str], split: str) -> Iterator[Predictions]:
    """Yield the predictions of some trials on a split, from the trials' own files.

    Args:
        run: The run.
        trial_ids: Whose.
        split: val or test.
    """
    for trial_id in trial_ids:
        yield Predictions.load(run.trial(trial_id).predictions(split))


def split_images(manifest: Manifest, images: ImageTable, split: str) -> SplitImages:
    """Return what is known of a split's images.

    Args:
        manifest: Of the run.
        images: Its used images.
        split: val or test.
    """
    rows = images.rows(split)
    used = manifest.table.filter(pc.equal(manifest.table["status"], "used"))
    groups = used["group"].to_pylist()
    components = find_components([images.sha256[row] for row in rows], [groups[row] for row in rows])
    shares = np.bincount(images.labels[images.rows("train")], minlength=len(images.classes)).astype(np.float64)
    # A class without a training image gets half of one: a loss must be finite.
    logits = np.log(np.maximum(shares, 0.5)).astype(np.float32)
    return SplitImages(
        image_ids=tuple(images.image_ids[row] for row in rows),
        labels=images.labels[rows],
        groups=components.of_row,
        constant=np.tile(logits, (len(rows), 1)),
    )


def _gather(
    run: RunFolder,
    trials: tuple[TrialSpec, ...],
    results: Mapping[str, TrialResult],
    tables: Iterator[Predictions],
    wanted: Collection[str] | None,
) -> RunResults:
    """Bring a run's tables together; values are kept of the trials that are wanted, None: of all."""
    manifest = Manifest.load(run.manifest)
    images = manifest.images()
    scores: dict[tuple[str, str], TrialScores] = {}
    for predictions in tables:
        source = predictions.source
        predictions.check_complete(images, source.split)
        is_wanted = wanted is None or source.key.id in wanted
        scores[source.key.id, source.split] = _score(predictions.in_order_of(images), keeps_values=is_wanted)
    return RunResults(
        run_id=run.run_id,
        spec=JobSpec.load(run.spec),
        trials=trials,
        results=results,
        scores=scores,
        classes=images.classes,
        splits={split: split_images(manifest, images, split) for split in ("val", "test")},
        num_train_images=len(images.rows("train")),
    )


def _score(predictions: Predictions, *, keeps_values: bool) -> TrialScores:
    labels, logits = predictions.labels, predictions.logits
    metrics = compute_metrics(labels, logits)
    if not keeps_values:
        return TrialScores(metrics, {}, np.zeros(0, np.int64), np.zeros(0))
    values = {metric: image_values(metric, labels, logits) for metric in METRICS}
    scores = score_images(labels, logits)
    return TrialScores(metrics, values, scores.predicted, scores.confidence)


def _read_trial_results(run: RunFolder, trials: Sequence[TrialSpec]) -> dict[str, TrialResult]:
    read = {trial.trial_id: run.trial(trial.trial_id).read_result() for trial in trials}
    return {trial_id: result for trial_id, result in read.items() if result is not None}
