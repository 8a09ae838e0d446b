from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from transferlib.evaluation.image_values import image_values, strata_of
from transferlib.evaluation.metrics import compute_metrics
from transferlib.names import METRICS


def random_case(num_images: int, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_images)
    logits = generator.normal(0, 3, (num_images, num_classes)) + 2 * np.eye(num_classes)[labels]
    return labels.astype(np.int64), logits.astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("num_images", "num_classes"), [(7, 2), (50, 3), (400, 11)])
def test_the_mean_over_images_is_exactly_the_metric(metric: str, num_images: int, num_classes: int) -> None:
    labels, logits = random_case(num_images, num_classes, num_images)
    values = image_values(metric, labels, logits)
    assert values.shape == (num_images,)
    assert values.dtype == np.float64
    assert values.mean() == pytest.approx(compute_metrics(labels, logits).value(metric), abs=1e-12)


def test_the_mean_over_images_is_scikit_learns() -> None:
    labels, logits = random_case(300, 5, 0)
    predicted = logits.argmax(axis=1)
    expected = {
        "accuracy": oracle.accuracy_score(labels, predicted),
        "balanced_accuracy": oracle.balanced_accuracy_score(labels, predicted),
        "macro_f1": oracle.f1_score(labels, predicted, average="macro"),
    }
    for metric, value in expected.items():
        assert image_values(metric, labels, logits).mean() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_classes_without_images_or_predictions_do_not_disturb_the_mean(metric: str) -> None:
    # Class 2 has neither images nor predictions; class 3 has no images, but one prediction.
    labels, logits = np.array([0, 0, 1, 1]), np.eye(4, dtype=np.float32)[[0, 3, 1, 1]]
    expected = compute_metrics(labels, logits).value(metric)
    assert image_values(metric, labels, logits).mean() == pytest.approx(expected)


def test_balanced_accuracy_weighs_an_image_of_a_small_class_more() -> None:
    # Two classes of 4 and 1 images: an image counts 5 / (2 * 4) and 5 / (2 * 1).
    labels = np.array([0, 0, 0, 0, 1])
    logits = np.eye(2, dtype=np.float32)[[0, 0, 1, 0, 1]]
    np.testing.assert_allclose(image_values("balanced_accuracy", labels, logits), [0.625, 0.625, 0, 0.625, 2.5])


def test_macro_f1_by_hand() -> None:
    # Labels 0 0 1 1, predictions 0 1 1 1: F1 of class 0 is 2/3, of class 1 4/5; macro 11/15.
    # P + L is 1 + 2 = 3 and 3 + 2 = 5; N / (K' (P + L)) is 2/3 and 2/5.
    # Image 1 (right, class 0): 11/15 + 2/3 (2 - 2 * 2/3) = 53/45. Image 2 (label 0, predicted 1): 11/15 - 2/3 * 2/3 -
    # 2/5 * 4/5 = -7/225. Images 3 and 4 (right, class 1): 11/15 + 2/5 (2 - 2 * 4/5) = 67/75.
    logits = np.eye(2, dtype=np.float32)[[0, 1, 1, 1]]
    values = image_values("macro_f1", np.array([0, 0, 1, 1]), logits)
    np.testing.assert_allclose(values, [53 / 45, -7 / 225, 67 / 75, 67 / 75])


def test_macro_f1_values_tell_what_leaving_an_image_out_changes() -> None:
    # To first order: F1 without image i is F1 - (y_i - F1) / (N - 1).
    labels, logits = random_case(2000, 4, 1)
    values = image_values("macro_f1", labels, logits)
    for index in range(0, 2000, 97):
        without = np.delete(np.arange(2000), index)
        change = compute_metrics(labels[without], logits[without]).macro_f1 - values.mean()
        assert change == pytest.approx(-(values[index] - values.mean()) / 1999, rel=0.02, abs=1e-7)


@pytest.mark.parametrize("metric", METRICS)
def test_the_order_of_images_does_not_matter(metric: str) -> None:
    labels, logits = random_case(200, 6, 2)
    order = np.random.default_rng(0).permutation(200)
    shuffled = image_values(metric, labels[order], logits[order])
    np.testing.assert_allclose(shuffled, image_values(metric, labels, logits)[order], atol=1e-12)


def test_only_balanced_accuracy_draws_images_within_classes() -> None:
    labels = np.array([3, 0, 3], np.int64)
    assert strata_of("balanced_accuracy", labels).tolist() == [3, 0, 3]
    for metric in ("accuracy", "macro_f1", "log_loss"):
        assert strata_of(metric, labels).tolist() == [0, 0, 0]


def test_unknown_metrics_and_no_images_are_refused() -> None:
    labels, logits = random_case(4, 2, 0)
    with pytest.raises(ValueError, match="unknown metric 'ece'"):
        image_values("ece", labels, logits)
    with pytest.raises(ValueError, match="no images"):
        image_values("accuracy", labels[:0], logits[:0])
