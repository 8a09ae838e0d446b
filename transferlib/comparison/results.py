"""What a run folder holds of its trials: how each ended, and the metrics of its predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from transferlib.comparison.plan import Plan
from transferlib.data.images import ImageTable
from transferlib.data.manifest import Manifest
from transferlib.errors import DataError
from transferlib.evaluation.metrics import Metrics, compute_metrics
from transferlib.evaluation.predictions import Predictions, read_predictions
from transferlib.records import FINISHED, TrialResult, TrialSpec
from transferlib.runs import RunFolder


@dataclass(frozen=True)
class RunResults:
    """Hold a run's trials and what came of them."""

    run_id: str
    trials: tuple[TrialSpec, ...]
    """All that were planned."""
    results: Mapping[str, TrialResult]
    """How trials ended, by trial id."""
    metrics: Mapping[tuple[str, str], Metrics]
    """By trial id and split."""
    classes: tuple[str, ...]

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Return the trials that are neither done nor failed."""
        ids = (trial.trial_id for trial in self.trials)
        return tuple(i for i in ids if i not in self.results or self.results[i].state not in FINISHED)


def read_results(run: RunFolder, splits: Sequence[str]) -> RunResults:
    """Read the trials' own files, finished or not.

    Args:
        run: Holds plan, manifest and trials.
        splits: Whose predictions to read: val, or val and test.

    Raises:
        DataError: A finished trial's validation predictions are missing, or a table is not the manifest's images.
    """
    trials = Plan.from_json(run.plan.read_text()).trials
    results = _read_trial_results(run, trials)
    images = Manifest.load(run.manifest).images()
    metrics: dict[tuple[str, str], Metrics] = {}
    for trial_id, result in results.items():
        for split in splits:
            path = run.trial(trial_id).predictions(split)
            if result.state != "done" or (split == "test" and not path.exists()):
                continue
            metrics[trial_id, split] = _checked_metrics(Predictions.load(path), images)
    return RunResults(run.run_id, trials, results, metrics, images.classes)


def read_final_results(run: RunFolder) -> RunResults:
    """Read a finished run: the metrics come from `predictions.parquet`.

    Raises:
        DataError: It is missing, is not the manifest's images, or lacks a trial that is done.
    """
    trials = Plan.from_json(run.plan.read_text()).trials
    results = _read_trial_results(run, trials)
    images = Manifest.load(run.manifest).images()
    metrics = {
        (_trial_id(predictions), predictions.source.split): _checked_metrics(predictions, images)
        for predictions in read_predictions(run.predictions)
    }
    lost = [i for i, result in results.items() if result.state == "done" and (i, "val") not in metrics]
    if lost:
        raise DataError(f"{run.predictions} lacks {len(lost)} trials that are done: {', '.join(lost[:3])}.")
    return RunResults(run.run_id, trials, results, metrics, images.classes)


def read_arm_predictions(run: RunFolder, trial_ids: Sequence[str], split: str) -> Iterator[Predictions]:
    """Yield the predictions of some trials on a split, from the trials' own files.

    Args:
        run: The run.
        trial_ids: Whose.
        split: val or test.
    """
    for trial_id in trial_ids:
        yield Predictions.load(run.trial(trial_id).predictions(split))


def _trial_id(predictions: Predictions) -> str:
    source = predictions.source
    return f"{source.arm}-s{source.seed}-c{source.candidate}"


def _read_trial_results(run: RunFolder, trials: Sequence[TrialSpec]) -> dict[str, TrialResult]:
    read = {trial.trial_id: run.trial(trial.trial_id).read_result() for trial in trials}
    return {trial_id: result for trial_id, result in read.items() if result is not None}


def _checked_metrics(predictions: Predictions, images: ImageTable) -> Metrics:
    predictions.check_complete(images, predictions.source.split)
    return compute_metrics(predictions.labels, predictions.logits)
