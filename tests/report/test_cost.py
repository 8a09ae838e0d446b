from __future__ import annotations

import pytest

from transferlib.comparison.arms import ArmResult, Figure
from transferlib.report.cost import dominated_arms, operations_text


def arm(name: str, value: float, flops: float, metric: str = "accuracy") -> ArmResult:
    figures = {"test": {metric: Figure({0: value})}}
    return ArmResult(name, "resnet18", name, metric, (), figures, 1, flops, 1.0, 1.0, 1, 1, 0, 1.0)


def test_an_arm_is_dominated_where_another_is_as_good_and_as_cheap_and_one_of_both_more() -> None:
    arms = [arm("good", 0.9, 5.0), arm("cheap", 0.8, 1.0), arm("dearer", 0.9, 6.0), arm("worse", 0.7, 1.0)]
    assert dominated_arms(arms, "test", "accuracy") == {"dearer", "worse"}


def test_equal_arms_do_not_dominate_each_other() -> None:
    assert dominated_arms([arm("a", 0.9, 5.0), arm("b", 0.9, 5.0)], "test", "accuracy") == set()


def test_less_log_loss_is_better() -> None:
    arms = [arm("low", 0.2, 1.0, "log_loss"), arm("high", 0.4, 2.0, "log_loss")]
    assert dominated_arms(arms, "test", "log_loss") == {"high"}


def test_arms_without_figures_take_no_part() -> None:
    assert dominated_arms([arm("a", 0.9, 5.0)], "val", "accuracy") == set()


@pytest.mark.parametrize(
    ("flops", "text"), [(8.41e12, "8.41 TFLOP"), (2e15, "2 PFLOP"), (15.6e9, "15.6 GFLOP"), (3.2e6, "3.2 MFLOP")]
)
def test_operations_have_a_unit(flops: float, text: str) -> None:
    assert operations_text(flops) == text
