"""What a run folder holds of its trials: how each ended, and what its predictions come to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from transferlib.comparison.tuning import Tuning
from transferlib.comparison.variance import Rows
from transferlib.data.components import find_components
from transferlib.data.images import ImageTable
from transferlib.data.manifest import Manifest
from transferlib.errors import DataError, RunFolderError
from transferlib.evaluation.image_values import image_values, strata_of, values_of_scores
from transferlib.evaluation.metrics import Metrics, Scores, metrics_of_scores, score_images
from transferlib.evaluation.predictions import Predictions, read_predictions
from transferlib.names import METRICS, SPLITS
from transferlib.records import FINISHED, Keyed, TrialKey, TrialResult, TrialSpec
from transferlib.runs import RunFolder, cure_of, reading
from transferlib.spec import JobSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

KeyedT = TypeVar("KeyedT", bound=Keyed)


@dataclass(frozen=True, eq=False)
class SplitImages:
    """Hold what is known of the images of one split, N of them, in the manifest's order; over folds that is all."""

    image_ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    """[N], equal for images that belong together: of one group or content, or near duplicates."""
    constant: npt.NDArray[np.float32]
    """[N, K], logits of the predictor that looks at no image: the classes' shares in train."""

    def rows(self, metric: str) -> Rows:
        """Return which images belong together, for a metric's inference."""
        return Rows.of(len(self.labels), self.groups, strata_of(metric, self.labels))

    def of_rows(self, rows: npt.NDArray[np.int64]) -> Self:
        """Return some of the images.

        Args:
            rows: Which, [n].
        """
        ids = tuple(self.image_ids[row] for row in rows)
        return type(self)(ids, self.labels[rows], self.groups[rows], self.constant[rows])

    def chance(self, metric: str) -> Floats:
        """Return the constant predictor's values of a metric, [N]."""
        return image_values(metric, self.labels, self.constant)


@dataclass(frozen=True, eq=False)
class TrialScores:
    """Hold what one trial's predictions on one split come to."""

    metrics: Metrics
    scores: Scores
    """Of each image; of none where they were not asked for."""
    values: Mapping[str, Floats]
    """By metric of `names.METRICS`: [N], whose mean is the metric; empty likewise."""

    @classmethod
    def of(cls, labels: npt.NDArray[np.int64], scores: Scores, num_classes: int, *, keeps_images: bool = True) -> Self:
        """Compute it.

        Args:
            labels: [N], of the images.
            scores: Of the images.
            num_classes: K.
            keeps_images: Whether what belongs to single images is wanted.
        """
        metrics = metrics_of_scores(labels, scores, num_classes)
        if not keeps_images:
            none, nothing = np.zeros(0, np.int64), np.zeros(0)
            return cls(metrics, Scores(none, nothing, nothing, none), {})
        return cls(metrics, scores, {m: values_of_scores(m, labels, scores, num_classes) for m in METRICS})

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Return the predicted class of each image, [N]."""
        return self.scores.predicted

    @property
    def confidence(self) -> Floats:
        """Return the softmax probability of the predicted class of each image, [N]."""
        return self.scores.confidence


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
    """Of val and test; where there are folds all images, each of which is in either once a seed."""
    num_train_images: int
    """Of each trial, where there is one cut."""
    places: Mapping[tuple[int, int], Mapping[str, npt.NDArray[np.int64]]] = field(default_factory=dict)
    """By seed and fold, then split (train too): which of all images a trial has there, [n]; empty where there is one
    cut."""

    @property
    def metric(self) -> str:
        """Return what chooses, ranks and is tested."""
        return self.spec.comparison.decided_metric

    @property
    def metrics(self) -> Mapping[tuple[str, str], Metrics]:
        """Return the metrics by trial id and split."""
        return {key: scores.metrics for key, scores in self.scores.items()}

    @property
    def begun_seeds(self) -> frozenset[int]:
        """Return the seeds of which a trial has not ended: arms are not compared over these."""
        return frozenset(trial.seed for trial in self.trials if trial.trial_id in self.unfinished)

    @property
    def num_folds(self) -> int:
        """Return how many trials of a rate and seed an arm's figure comes from; 1: the images are cut once."""
        return max(self.spec.data.split.folds or 1, 1)

    @property
    def test_per_train(self) -> float:
        """Return how many images are tested for each one that is trained on, of one trial."""
        if not self.places:
            return len(self.splits["test"].labels) / max(self.num_train_images, 1)
        num_test, num_train = (sum(len(of[split]) for of in self.places.values()) for split in ("test", "train"))
        return num_test / max(num_train, 1)

    def num_trained_on(self, key: TrialKey) -> int:
        """Return how many images a trial trains on.

        Args:
            key: Of the trial.
        """
        return len(self.places[key.seed, key.fold]["train"]) if key.fold else self.num_train_images

    def images_of(self, key: TrialKey, split: str) -> SplitImages:
        """Return the images of a trial's split.

        Args:
            key: Of the trial.
            split: val or test.
        """
        if not key.fold:
            return self.splits[split]
        return self.splits[split].of_rows(self.places[key.seed, key.fold][split])

    def shown(self, chosen: Sequence[KeyedT], split: str) -> list[KeyedT]:
        """Return the trials of one arm that its figures come from.

        That are those of whole seeds: every fold has one that has read the split. On validation, while trials go on and
        some seeds are finished in all arms, the other seeds do not count either.

        Args:
            chosen: Trials of one arm, one a seed and fold.
            split: val or test.
        """
        num_read = Counter(trial.seed for trial in chosen if (trial.trial_id, split) in self.scores)
        is_interim = split == "val" and any(trial.seed not in self.begun_seeds for trial in self.trials)
        begun = self.begun_seeds if is_interim else frozenset()
        return [trial for trial in chosen if num_read[trial.seed] == self.num_folds and trial.seed not in begun]

    def by_seed(self, chosen: Sequence[Keyed], split: str) -> dict[int, TrialScores]:
        """Return one arm's scores on all images of a split by seed: of its trial, or of its folds' trials together.

        Args:
            chosen: Trials of one arm, one a seed and fold; those that `shown` leaves out count for nothing.
            split: val or test.
        """
        seeds: dict[int, list[TrialKey]] = {}
        for trial in self.shown(chosen, split):
            seeds.setdefault(trial.seed, []).append(trial.key)
        return {seed: self._joined(keys, split) for seed, keys in sorted(seeds.items())}

    def _joined(self, keys: Sequence[TrialKey], split: str) -> TrialScores:
        """Return the scores of trials that have an image each once, in the images' order."""
        found = [self.scores[key.id, split] for key in keys]
        if self.num_folds == 1:
            return found[0]
        order = np.argsort(np.concatenate([self.places[key.seed, key.fold][split] for key in keys]))
        parts = zip(*(one.scores for one in found), strict=True)
        scores = Scores(*(np.concatenate(part)[order] for part in parts))
        return TrialScores.of(self.splits[split].labels, scores, len(self.classes))

    def by_fold(self, chosen: Sequence[Keyed], split: str, metric: str) -> dict[tuple[int, int], float]:
        """Return one arm's mean of a metric's values by seed and fold; empty where there is one cut.

        Args:
            chosen: Trials of one arm, one a seed and fold.
            split: val or test.
            metric: One of `names.METRICS`.
        """
        if self.num_folds == 1:
            return {}
        return {
            (seed, fold): float(scores.values[metric][self.places[seed, fold][split]].mean())
            for seed, scores in self.by_seed(chosen, split).items()
            for fold in self.spec.data.split.fold_values
        }

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
    """Return every trial of a run's plan, in its order.

    Raises:
        RunFolderError: There is no plan, or it is damaged.
    """
    try:
        with reading(run.plan):
            return tuple(TrialSpec.from_plain(trial) for trial in json.loads(run.plan.read_text())["trials"])
    except FileNotFoundError:
        raise RunFolderError(f"{run.plan} is missing. {cure_of(run.plan)}") from None


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
        DataError: It is missing, is not the manifest's images, or lacks a trial that is done; or a result is gone.
    """
    trials = planned_trials(run)
    results = _read_trial_results(run, trials)
    if gone := [trial_id for trial_id in chosen if trial_id not in results]:
        raise DataError(
            f"{run.trial(gone[0]).result} is missing, so what that trial took is not known. `--resume` trains "
            f"{', '.join(gone[:3])} again."
        )
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
    """Return what is known of a split's images; where there are folds, of all images.

    Args:
        manifest: Of the run.
        images: Its used images.
        split: val or test.
    """
    rows = images.rows(split) if manifest.folds is None else np.arange(len(images), dtype=np.int64)
    groups = manifest.groups
    near = manifest.near_groups
    components = find_components(
        [images.sha256[row] for row in rows], [groups[row] for row in rows], near and [near[row] for row in rows]
    )
    # Where there are folds each image trains most of the models.
    seen = images.labels[images.rows("train")] if manifest.folds is None else images.labels
    shares = np.bincount(seen, minlength=len(images.classes)).astype(np.float64)
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
    of_trials = {(trial.seed, trial.fold): manifest.images(trial.key) for trial in trials}
    scores: dict[tuple[str, str], TrialScores] = {}
    for predictions in tables:
        source = predictions.source
        if (source.key.seed, source.key.fold) not in of_trials:
            raise DataError(f"The {source} are of no trial of this run's plan.")
        own = of_trials[source.key.seed, source.key.fold]
        predictions.check_complete(own, source.split)
        is_wanted = wanted is None or source.key.id in wanted
        scores[source.key.id, source.split] = _score(predictions.in_order_of(own), keeps_images=is_wanted)
    return RunResults(
        run_id=run.run_id,
        spec=JobSpec.load(run.spec),
        trials=trials,
        results=results,
        scores=scores,
        classes=images.classes,
        splits={split: split_images(manifest, images, split) for split in ("val", "test")},
        num_train_images=len(images.rows("train")),
        places={}
        if manifest.folds is None
        else {key: {split: own.rows(split) for split in SPLITS} for key, own in of_trials.items()},
    )


def _score(predictions: Predictions, *, keeps_images: bool) -> TrialScores:
    labels, logits = predictions.labels, predictions.logits
    return TrialScores.of(labels, score_images(labels, logits), logits.shape[1], keeps_images=keeps_images)


def _read_trial_results(run: RunFolder, trials: Sequence[TrialSpec]) -> dict[str, TrialResult]:
    read = {trial.trial_id: run.trial(trial.trial_id).read_result() for trial in trials}
    return {trial_id: result for trial_id, result in read.items() if result is not None}
