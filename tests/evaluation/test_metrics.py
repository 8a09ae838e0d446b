from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as oracle

from transferlib.evaluation.metrics import (
    METRIC_NAMES,
    calibration_bins,
    compute_metrics,
    score_images,
    selection_score,
)
from transferlib.names import METRICS


def random_case(num_images: int, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_images)
    logits = generator.normal(0, 3, (num_images, num_classes)) + 2 * np.eye(num_classes)[labels]
    return labels.astype(np.int64), logits.astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("num_images", "num_classes"), [(50, 2), (333, 5), (400, 6), (5000, 11)])
def test_metrics_are_scikit_learns(num_images: int, num_classes: int) -> None:
    labels, logits = random_case(num_images, num_classes, num_images)
    found, predicted, every = compute_metrics(labels, logits), logits.argmax(axis=1), range(num_classes)
    assert found.num_images == num_images
    assert found.accuracy == pytest.approx(oracle.accuracy_score(labels, predicted), abs=1e-12)
    assert found.balanced_accuracy == pytest.approx(oracle.balanced_accuracy_score(labels, predicted), abs=1e-12)
    assert found.macro_f1 == pytest.approx(oracle.f1_score(labels, predicted, average="macro"), abs=1e-12)
    expected_loss = oracle.log_loss(labels, softmax(logits), labels=every)
    assert found.log_loss == pytest.approx(expected_loss, abs=1e-10)
    np.testing.assert_array_equal(found.confusion, oracle.confusion_matrix(labels, predicted, labels=every))
    if num_classes > 5:
        assert found.top5 == pytest.approx(oracle.top_k_accuracy_score(labels, logits, k=5, labels=every), abs=1e-12)
    else:
        assert found.top5 is None


def test_classes_without_images_do_not_count_as_missed() -> None:
    # Class 2 has neither images nor predictions; class 3 has no images, but one prediction.
    labels = np.array([0, 0, 1, 1])
    logits = np.eye(4, dtype=np.float32)[[0, 3, 1, 1]]
    found = compute_metrics(labels, logits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of the class that is predicted and has no images
        assert found.balanced_accuracy == pytest.approx(oracle.balanced_accuracy_score(labels, [0, 3, 1, 1]))
    assert found.balanced_accuracy == pytest.approx((0.5 + 1.0) / 2)
    assert found.macro_f1 == pytest.approx(oracle.f1_score(labels, [0, 3, 1, 1], average="macro"))
    assert found.macro_f1 == pytest.approx((2 / 3 + 1.0 + 0.0) / 3)


def test_ece_by_hand() -> None:
    # Two classes: a logit gap of log(p / (1 - p)) gives confidence p. Bins are a fifteenth wide.
    confidence = np.array([0.9, 0.9, 0.9, 0.7, 0.7, 0.55])
    is_right = np.array([1, 1, 0, 1, 0, 0])
    logits = np.stack([np.log(confidence / (1 - confidence)), np.zeros(6)], axis=1).astype(np.float32)
    labels = 1 - is_right
    expected = (3 * abs(2 / 3 - 0.9) + 2 * abs(1 / 2 - 0.7) + 1 * abs(0 - 0.55)) / 6
    assert compute_metrics(labels, logits).ece == pytest.approx(expected, abs=1e-6)


def test_calibration_bins_hold_every_image_and_their_upper_edge() -> None:
    labels, logits = random_case(1000, 4, 0)
    bins = calibration_bins(score_images(labels, logits))
    assert bins.num_images.sum() == 1000
    certain = calibration_bins(score_images(np.array([0]), np.array([[200.0, 0.0]], np.float32)))
    assert certain.num_images.tolist() == [0] * 14 + [1]
    assert certain.confidence[-1] == certain.accuracy[-1] == 1.0


def test_large_logits_stay_finite() -> None:
    found = compute_metrics(np.array([0, 1]), np.array([[1e30, -1e30], [1e4, 0.0]], np.float32))
    assert found.accuracy == 0.5
    assert found.log_loss == pytest.approx(5e3)


def test_equal_logits_rank_by_class_so_that_top1_and_argmax_agree() -> None:
    labels = np.arange(7)
    scores = score_images(labels, np.zeros((7, 7), np.float32))
    assert scores.label_rank.tolist() == list(range(7))
    assert compute_metrics(labels, np.zeros((7, 7), np.float32)).top5 == pytest.approx(5 / 7)


def test_metrics_do_not_depend_on_the_order_of_images_nor_on_chunks() -> None:
    labels, logits = random_case(9001, 7, 3)
    order = np.random.default_rng(0).permutation(9001)
    one, other = compute_metrics(labels, logits), compute_metrics(labels[order], logits[order])
    for name in METRIC_NAMES:
        assert one.value(name) == pytest.approx(other.value(name), abs=1e-12)


def test_metrics_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        compute_metrics(np.zeros(0, np.int64), np.zeros((0, 3), np.float32))


@pytest.mark.parametrize("metric", METRICS)
def test_a_higher_selection_score_is_better(metric: str) -> None:
    labels = np.array([0, 1, 1, 2])
    good, bad = (scale * np.eye(3, dtype=np.float32)[labels] for scale in (3.0, -3.0))
    assert selection_score(metric, labels, good) > selection_score(metric, labels, bad)


def test_the_selection_score_of_accuracy_is_the_share_of_right_predictions_to_the_last_bit() -> None:
    random = np.random.default_rng(0)
    for number in (3, 7, 81):
        labels, logits = random.integers(0, 4, number), random.normal(size=(number, 4)).astype(np.float32)
        assert selection_score("accuracy", labels, logits) == float((logits.argmax(axis=1) == labels).mean())
