"""Metrics of a classifier, from all labels and logits of a split at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transferlib.names import LOWER_IS_BETTER

if TYPE_CHECKING:
    import numpy.typing as npt

METRIC_NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "top5", "log_loss", "ece")
"""Fields of `Metrics` that are one number, in the order they are shown."""

NUM_CALIBRATION_BINS = 15
"""Source: Guo et al. 2017, On Calibration of Modern Neural Networks, section 5 (M = 15)."""

TOP_K = 5
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Metrics:
    """Hold what one model reached on one split."""

    num_images: int
    accuracy: float
    """Share of images whose largest logit is the label's, 0 to 1."""
    balanced_accuracy: float
    """Mean recall over the classes that have images, 0 to 1."""
    macro_f1: float
    """Mean F1 over the classes that have images or predictions, 0 to 1."""
    top5: float | None
    """Share of images whose label is among the five largest logits; None with five classes or fewer."""
    log_loss: float
    """Mean negative log-likelihood of the label, nat."""
    ece: float
    """Expected calibration error over 15 equal-width bins of confidence, 0 to 1."""
    confusion: npt.NDArray[np.int64] = field(compare=False, repr=False)
    """int64 [K, K]: images by label (row) and predicted class (column)."""

    def value(self, name: str) -> float | None:
        """Return one of `METRIC_NAMES`."""
        value: float | None = getattr(self, name)
        return value


class Scores(NamedTuple):
    """Hold what metrics need of each image.

    Attributes:
        predicted: int64 [N], the class of the largest logit, the first of equals.
        confidence: float64 [N], softmax probability of `predicted`.
        label_loss: float64 [N], negative log-probability of the label, nat.
        label_rank: int64 [N], how many classes come before the label, 0 when it is predicted.
    """

    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    label_loss: npt.NDArray[np.float64]
    label_rank: npt.NDArray[np.int64]


class CalibrationBins(NamedTuple):
    """Hold images by confidence, in equal-width bins over (0, 1].

    Attributes:
        num_images: int64 [bins].
        accuracy: float64 [bins], 0 where a bin is empty.
        confidence: float64 [bins], mean confidence, 0 where a bin is empty.
    """

    num_images: npt.NDArray[np.int64]
    accuracy: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]


def score_images(labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> Scores:
    """Compute prediction, confidence, loss and rank of each image in float64.

    Args:
        labels: int64 [N], 0 to K - 1.
        logits: float [N, K], finite.
    """
    parts = list(_score_parts(labels, logits))
    if not parts:
        none, nothing = np.zeros(0, np.int64), np.zeros(0)
        return Scores(none, nothing, nothing, none)
    return Scores(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _score_parts(labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> Iterator[Scores]:
    classes = np.arange(logits.shape[1])
    # In float64 by chunks: a whole split of 1,000 classes would double its memory twice.
    for start in range(0, len(labels), _ROWS_AT_ONCE):
        chunk = logits[start : start + _ROWS_AT_ONCE].astype(np.float64)
        label = labels[start : start + _ROWS_AT_ONCE]
        rows = np.arange(len(label))
        shifted = chunk - chunk.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1))
        of_label = shifted[rows, label][:, None]
        # Equal logits rank by class index, so that rank 0 and argmax name the same class.
        before = (shifted > of_label) | ((shifted == of_label) & (classes < label[:, None]))
        yield Scores(
            predicted=shifted.argmax(axis=1),
            confidence=np.exp(-log_sum),
            label_loss=log_sum - of_label[:, 0],
            label_rank=before.sum(axis=1),
        )


def calibration_bins(scores: Scores, num_bins: int = NUM_CALIBRATION_BINS) -> CalibrationBins:
    """Gather images by confidence; a bin holds its upper edge.

    Source: Guo et al. 2017, section 2 (bins ((m - 1) / M, m / M]).
    """
    index = np.clip(np.ceil(scores.confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    count = np.bincount(index, minlength=num_bins)
    divisor = np.maximum(count, 1)
    right = np.bincount(index, weights=scores.label_rank == 0, minlength=num_bins)
    confidence = np.bincount(index, weights=scores.confidence, minlength=num_bins)
    return CalibrationBins(count, right / divisor, confidence / divisor)


def compute_metrics(labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> Metrics:
    """Compute every metric of one model on one split.

    Args:
        labels: int64 [N], 0 to K - 1, N > 0.
        logits: float [N, K], finite.

    Raises:
        ValueError: No images.
    """
    if not len(labels):
        raise ValueError("metrics of no images are not defined")
    return metrics_of_scores(labels, score_images(labels, logits), logits.shape[1])


def metrics_of_scores(labels: npt.NDArray[np.int64], scores: Scores, num_classes: int) -> Metrics:
    """Compute every metric from what `score_images` keeps of each image.

    Args:
        labels: int64 [N], 0 to K - 1, N > 0.
        scores: Of the N images.
        num_classes: K.
    """
    num_images = len(labels)
    pairs = labels * num_classes + scores.predicted
    confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    right, of_label, of_predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    labelled, involved = of_label > 0, of_label + of_predicted > 0
    bins = calibration_bins(scores)
    gaps = bins.num_images * np.abs(bins.accuracy - bins.confidence)
    return Metrics(
        num_images=num_images,
        accuracy=float(right.sum() / num_images),
        balanced_accuracy=float((right[labelled] / of_label[labelled]).mean()),
        macro_f1=float((2 * right[involved] / (of_label + of_predicted)[involved]).mean()),
        top5=float((scores.label_rank < TOP_K).mean()) if num_classes > TOP_K else None,
        log_loss=float(scores.label_loss.mean()),
        ece=float(gaps.sum() / num_images),
        confusion=confusion,
    )


def selection_score(metric: str, labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> float:
    """Return a metric such that higher is better: log-loss is negated.

    Args:
        metric: One of `names.METRICS`.
        labels: int64 [N].
        logits: float [N, K].
    """
    value = getattr(compute_metrics(labels, logits), metric)
    return -float(value) if metric in LOWER_IS_BETTER else float(value)
