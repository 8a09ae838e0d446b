"""A metric as a mean over images: one value an image, so that one set of formulas says how sure any metric is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from transferlib.evaluation.metrics import Scores, score_images
from transferlib.names import METRICS

if TYPE_CHECKING:
    import numpy.typing as npt


def image_values(
    metric: str, labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return one value an image whose mean over images is exactly the metric.

    N images, n_k of class k, K' classes that count:
    accuracy: 1 where the prediction is right, 0 elsewhere.
    log_loss: the image's negative log-likelihood, nat.
    balanced_accuracy: N / (K' n_k) where it is right, 0 elsewhere; K' classes have images.
    macro_f1: F1 + (1/K') sum over classes k of N / (P_k + L_k) (2 [label = predicted = k] - F1_k ([label = k] +
    [predicted = k])), with L_k images and P_k predictions of class k; K' classes have either. That is macro-F1 plus its
    influence function: to first order, what one more such image changes.

    Args:
        metric: One of `names.METRICS`.
        labels: int64 [N], 0 to K - 1, N > 0.
        logits: float [N, K], finite.

    Raises:
        ValueError: No images, or a metric that is not one of `names.METRICS`.

    Source: Hampel 1974, The Influence Curve and Its Role in Robust Estimation.
    """
    return values_of_scores(metric, labels, score_images(labels, logits), logits.shape[1])


def values_of_scores(
    metric: str, labels: npt.NDArray[np.int64], scores: Scores, num_classes: int
) -> npt.NDArray[np.float64]:
    """Return `image_values` from what `score_images` keeps of each image.

    Args:
        metric: One of `names.METRICS`.
        labels: int64 [N], 0 to K - 1, N > 0.
        scores: Of the N images.
        num_classes: K.

    Raises:
        ValueError: No images, or a metric that is not one of `names.METRICS`.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}")
    if not len(labels):
        raise ValueError("metrics of no images are not defined")
    if metric == "log_loss":
        return scores.label_loss
    if metric == "macro_f1":
        return _f1_values(labels, scores, num_classes)
    is_right: npt.NDArray[np.float64] = (scores.label_rank == 0).astype(np.float64)
    return is_right if metric == "accuracy" else is_right * _class_weights(labels)


def strata_of(metric: str, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the stratum of each image: images are taken to be drawn anew within these.

    Balanced accuracy is a mean over classes of means within a class, whatever the classes' sizes: its strata are the
    classes. The other metrics have one stratum.

    Args:
        metric: One of `names.METRICS`.
        labels: int64 [N].
    """
    return labels.astype(np.int64) if metric == "balanced_accuracy" else np.zeros(len(labels), np.int64)


def _class_weights(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    of_label = np.bincount(labels)
    weights: npt.NDArray[np.float64] = len(labels) / (np.count_nonzero(of_label) * of_label[labels])
    return weights


def _f1_values(labels: npt.NDArray[np.int64], scores: Scores, num_classes: int) -> npt.NDArray[np.float64]:
    is_right = scores.label_rank == 0
    right = np.bincount(labels[is_right], minlength=num_classes)
    involved = np.bincount(labels, minlength=num_classes) + np.bincount(scores.predicted, minlength=num_classes)
    f1 = 2 * right / np.maximum(involved, 1)
    weight = len(labels) / (np.count_nonzero(involved) * np.maximum(involved, 1))
    loss = weight * f1
    of_right = 2 * weight[labels] * is_right
    influence: npt.NDArray[np.float64] = of_right - loss[labels] - loss[scores.predicted]
    return float(f1.sum() / np.count_nonzero(involved)) + influence
