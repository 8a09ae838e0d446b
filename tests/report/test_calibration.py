from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from transferlib.evaluation.metrics import CalibrationBins
from transferlib.report.calibration import TEMPERATURES, fit_temperature
from transferlib.report.figures import draw_reliability


def labelled(num_images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels drawn from the softmax of logits, and the logits: a model whose confidence is right."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (num_images, 4))
    shares = np.exp(log_softmax(logits, axis=1)).cumsum(axis=1)
    return (generator.random((num_images, 1)) > shares).sum(axis=1).clip(max=3), logits


def test_temperature_undoes_what_made_a_model_too_sure() -> None:
    labels, logits = labelled(4000)
    assert fit_temperature(labels, (2.5 * logits).astype(np.float32)) == pytest.approx(2.5, rel=0.08)
    assert fit_temperature(labels, (0.5 * logits).astype(np.float32)) == pytest.approx(0.5, rel=0.08)


def test_temperature_is_the_minimum_of_the_log_loss() -> None:
    labels, logits = labelled(60, seed=4)

    def loss(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, axis=1)[np.arange(60), labels].mean())

    expected = minimize_scalar(loss, bounds=TEMPERATURES, method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(labels, logits) == pytest.approx(expected, rel=1e-4)


def test_temperature_stays_within_its_bounds_where_validation_has_no_mistake_or_no_hit() -> None:
    labels, logits = np.array([0, 1]), np.array([[3.0, 0.0], [0.0, 3.0]], np.float32)
    assert fit_temperature(labels, logits) == pytest.approx(TEMPERATURES[0])
    assert fit_temperature(1 - labels, logits) == pytest.approx(TEMPERATURES[1])


def test_adding_to_all_logits_of_an_image_changes_no_temperature() -> None:
    labels, logits = labelled(60)
    moved = logits + np.arange(60)[:, None]
    assert fit_temperature(labels, moved) == pytest.approx(fit_temperature(labels, logits), rel=1e-6)


def test_empty_bins_are_neither_points_nor_under_a_line() -> None:
    held = np.zeros(15, bool)
    held[[3, 4, 13]] = True
    middles = (np.arange(15) + 0.5) / 15
    apart = CalibrationBins(np.where(held, 5, 0), np.where(held, 0.5, 0.0), np.where(held, middles, 0.0))
    svg = draw_reliability("r", "arm", apart, 0)
    lines = [line for line in svg.split("<path")[1:] if "stroke: var(--series-0)" in line and "L" in line]
    assert len(lines) == 1, "bins 3 and 4 are joined, 13 stands alone"
    assert svg.count("fill: var(--series-0)") == 3, "points"
