from __future__ import annotations

import numpy as np
import pytest

from transferlib.comparison.choose import Choice, choose_from
from transferlib.comparison.label_errors import suspected_labels
from transferlib.comparison.results import RunResults, SplitImages, TrialScores
from transferlib.evaluation.image_values import image_values
from transferlib.evaluation.metrics import compute_metrics, score_images
from transferlib.names import METRICS
from transferlib.records import TrialKey, TrialResult, TrialSpec
from transferlib.spec import JobSpec

CLASSES = ("daisy", "dandelion", "rose", "sunflower", "tulip")


def scores_of(labels: np.ndarray, logits: np.ndarray) -> TrialScores:
    scores = score_images(labels, logits)
    values = {metric: image_values(metric, labels, logits) for metric in METRICS}
    return TrialScores(compute_metrics(labels, logits), scores, values)


def results_of(labels: np.ndarray, logits: dict[str, np.ndarray]) -> tuple[RunResults, Choice]:
    """Return what a run of these test logits [N, K] by trial id holds; validation is the same images."""
    trials = tuple(TrialSpec(TrialKey.parse(trial_id), 0.1) for trial_id in logits)
    images = SplitImages(
        image_ids=tuple(f"{row:04}.jpg" for row in range(len(labels))),
        labels=labels,
        groups=np.arange(len(labels)),
        constant=np.zeros((len(labels), len(CLASSES)), np.float32),
    )
    found = RunResults(
        run_id="run",
        spec=JobSpec.from_mapping({"verb": "compare", "data": {"path": "photos"}}),
        trials=trials,
        results={trial.trial_id: TrialResult(trial.key, trial.lr, "done") for trial in trials},
        scores={(name, split): scores_of(labels, table) for name, table in logits.items() for split in ("val", "test")},
        classes=CLASSES,
        splits={"val": images, "test": images},
        num_train_images=10,
    )
    return found, choose_from(found)


def saying(*said: int) -> np.ndarray:
    return (5 * np.eye(len(CLASSES))[list(said)]).astype(np.float32)


def test_only_what_every_model_calls_the_same_other_class_is_suspected() -> None:
    labels = np.array([0, 0, 1, 2])
    logits = {
        "resnet18-full-s0-c0": saying(0, 3, 2, 4),
        "resnet18-full-s1-c0": saying(0, 3, 2, 4),
        "resnet18-last_layers-s0-c0": saying(0, 3, 3, 4),
        "resnet18-last_layers-s1-c0": saying(1, 3, 2, 4),
    }
    logits["resnet18-full-s0-c0"][3] *= 2  # surer of image 3 than of image 1
    suspected = suspected_labels(*results_of(labels, logits))
    assert [(found.image_id, found.label, found.says) for found in suspected] == [
        ("0003.jpg", "rose", "tulip"),
        ("0001.jpg", "daisy", "sunflower"),
    ]
    assert {found.num_models for found in suspected} == {4}
    sure = np.exp(5) / (np.exp(5) + 4)
    assert suspected[1].mean_confidence == pytest.approx(sure, abs=1e-12)
    assert suspected[0].mean_confidence == pytest.approx((3 * sure + np.exp(10) / (np.exp(10) + 4)) / 4, abs=1e-12)


def test_one_model_suspects_nothing() -> None:
    assert suspected_labels(*results_of(np.array([0, 1]), {"resnet18-full-s0-c0": saying(1, 1)})) == ()


def test_a_run_that_has_not_read_the_test_set_suspects_nothing() -> None:
    found, choice = results_of(np.array([0]), {f"resnet18-full-s{seed}-c0": saying(1) for seed in range(3)})
    for seed in range(3):
        del found.scores[f"resnet18-full-s{seed}-c0", "test"]  # type: ignore[attr-defined]
    assert suspected_labels(found, choice) == ()


def test_planted_wrong_labels_are_found() -> None:
    """Plant 5 % wrong labels in the table of 3 arms x 3 seeds that are right on 0.93 of the true labels."""
    rng = np.random.default_rng(8)
    num_images, num_classes = 1_000, len(CLASSES)
    truth = rng.integers(0, num_classes, num_images)
    planted = rng.permutation(num_images)[: num_images // 20]
    labels = truth.copy()
    labels[planted] = (truth[planted] + rng.integers(1, num_classes, len(planted))) % num_classes
    # What all models share of an image (how plain it is, what else it looks like), then what is each one's own.
    plain = rng.normal(5.0, 1.6, num_images)
    alike = rng.normal(0, 1.0, (num_images, num_classes))
    logits = {
        f"resnet18-{strategy}-s{seed}-c0": (
            plain[:, None] * np.eye(num_classes)[truth] + alike + rng.normal(0, 0.8, (num_images, num_classes))
        ).astype(np.float32)
        for strategy in ("feature_extraction", "last_layers", "full")
        for seed in range(3)
    }
    accuracy = np.mean([(table.argmax(axis=1) == truth).mean() for table in logits.values()])
    assert 0.9 < accuracy < 0.96
    suspected = suspected_labels(*results_of(labels, logits))
    is_planted = [int(found.image_id[:4]) in set(planted.tolist()) for found in suspected]
    precision, recall = np.mean(is_planted), np.sum(is_planted) / len(planted)
    of_first = np.mean(is_planted[: len(planted) // 2])
    print(f"\n{len(planted)} of {num_images} labels wrong, models right on {accuracy:.3f} of the true ones:")
    print(f"{len(suspected)} suspected, precision {precision:.2f}, recall {recall:.2f}; first half {of_first:.2f}")
    assert precision > 0.6
    assert recall > 0.75
    assert of_first > 0.9
