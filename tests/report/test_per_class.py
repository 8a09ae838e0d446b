from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from transferlib.report.per_class import per_class

CLASSES = ("a", "b", "c")
GENERATOR = np.random.default_rng(3)
LABELS = GENERATOR.integers(0, 3, 90)
PREDICTED = np.where(GENERATOR.random(90) < 0.7, LABELS, GENERATOR.integers(0, 3, 90))
ALONE = np.arange(90)


def wilson(right: int, among: int) -> tuple[float, float]:
    limits = binomtest(right, among).proportion_ci(method="wilson")
    return float(limits.low), float(limits.high)


def test_figures_are_scikit_learns() -> None:
    found = {figures.label: figures for figures in per_class(LABELS, PREDICTED, ALONE, CLASSES)}
    expected = precision_recall_fscore_support(LABELS, PREDICTED)
    for number, label in enumerate(CLASSES):
        shown = [getattr(found[label], name).value for name in ("precision", "recall", "f1")]
        assert shown == pytest.approx([column[number] for column in expected[:3]])
        assert found[label].num_images == expected[3][number]


def test_limits_of_precision_and_recall_are_wilsons() -> None:
    for number, label in enumerate(CLASSES):
        figures = next(f for f in per_class(LABELS, PREDICTED, ALONE, CLASSES) if f.label == label)
        right = int(((number == LABELS) & (number == PREDICTED)).sum())
        for found, among in ((figures.recall, number == LABELS), (figures.precision, number == PREDICTED)):
            assert found is not None
            assert (found.low, found.high) == pytest.approx(wilson(right, int(among.sum())))


def test_limits_of_f1_are_those_of_the_share_right_among_all_that_are_or_are_called_so() -> None:
    labels, predicted = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0, 1])
    figures = next(f for f in per_class(labels, predicted, np.arange(6), ("a", "b")) if f.label == "a")
    low, high = wilson(3, 5)
    assert figures.f1 is not None
    assert figures.f1.value == pytest.approx(6 / 8)
    assert (figures.f1.low, figures.f1.high) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))


def test_limits_of_f1_hold_it_nineteen_times_of_twenty() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        labels = generator.integers(0, 2, 120)
        predicted = np.where(generator.random(120) < 0.8, labels, 1 - labels)
        found = per_class(labels, predicted, np.arange(120), ("a", "b"))[0].f1
        assert found is not None
        held += found.low <= 0.8 <= found.high
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_a_class_without_a_mistake_or_without_a_hit_keeps_an_interval() -> None:
    found = per_class(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0]), np.arange(4), ("a", "b"))
    worst = found[0]
    assert worst.label == "b"
    assert worst.precision is None
    assert worst.recall is not None
    assert worst.recall.value == worst.recall.low == 0.0 < worst.recall.high
    assert worst.f1 is not None
    assert worst.f1.low == 0.0 < worst.f1.high


def test_images_of_one_group_are_one_observation() -> None:
    labels, predicted = np.tile(LABELS, 3), np.tile(PREDICTED, 3)
    alone = per_class(labels, predicted, np.arange(270), CLASSES)[0].recall
    together = per_class(labels, predicted, np.tile(ALONE, 3), CLASSES)[0].recall
    assert alone is not None
    assert together is not None
    assert together.value == pytest.approx(alone.value)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
