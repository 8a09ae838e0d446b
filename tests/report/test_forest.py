from __future__ import annotations

import re

import pytest

from transferlib.comparison.statistics import Inference, PairStatement
from transferlib.report.forest import MAX_PAIRS, best_first, draw_differences, pair_names, shown_pairs


def reading(low: float, high: float, p: float = 0.01) -> Inference:
    return Inference(low, high, 5.0, p, p, 0.01)


def pair(a: str, b: str, gap: float, *, again: bool = True) -> PairStatement:
    anew = reading(gap - 0.04, gap + 0.04) if again else None
    return PairStatement(a, b, gap, 9, reading(gap - 0.02, gap + 0.02), anew)


def test_pairs_are_turned_so_that_the_first_is_better_the_largest_difference_first() -> None:
    found = best_first([pair("a", "b", -0.05), pair("a", "c", 0.01)])
    assert [(one.a, one.b, one.difference) for one in found] == [("b", "a", 0.05), ("a", "c", 0.01)]
    assert found[0].these_models.low == pytest.approx(0.03)


def test_of_losses_the_lower_arm_is_the_better() -> None:
    (found,) = best_first([pair("a", "b", -0.05)])
    assert pair_names(found, "log_loss") == ("a", "b")
    assert pair_names(found, "accuracy") == ("b", "a")


def test_plot_has_both_readings_zero_and_the_margin_on_both_sides() -> None:
    svg = draw_differences(best_first([pair("a", "b", 0.05)]), "accuracy", 0.02, "test")
    assert "a over b" in svg
    assert svg.count("<use ") == 2, "a point a reading"
    assert "var(--accent)" in svg, "told apart"
    assert len(re.findall("stroke-dasharray", svg)) == 2


def test_without_training_again_there_is_one_reading() -> None:
    svg = draw_differences(best_first([pair("a", "b", 0.05, again=False)]), "accuracy", 0.02, "test")
    assert svg.count("<use ") == 1
    assert "var(--accent)" not in svg


def test_of_very_many_pairs_those_of_the_best_arm_are_shown() -> None:
    few = [pair("a", "b", 0.05), pair("a", "c", 0.04), pair("b", "c", 0.01)]
    assert shown_pairs(few, "a") == few
    many = [pair(f"arm{i}", f"arm{j}", 0.01) for i in range(40) for j in range(i)]
    shown = shown_pairs(many, "arm7")
    assert len(shown) == MAX_PAIRS
    assert all("arm7" in (one.a, one.b) for one in shown)
