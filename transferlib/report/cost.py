"""Quality against cost: which arms are dominated, and what they took."""

from __future__ import annotations

from collections.abc import Sequence

from transferlib.comparison.arms import ArmResult
from transferlib.names import LOWER_IS_BETTER

UNITS = ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


def dominated_arms(arms: Sequence[ArmResult], split: str, metric: str) -> frozenset[str]:
    """Return the arms that another arm equals or beats in both the metric's mean and the operations of training.

    It is read off the means as they are: it says nothing of whether they are told apart.

    Args:
        arms: All; those without a result take no part.
        split: Whose figures.
        metric: One of `names.METRICS`.
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    figures = ((arm, arm.figure(split, metric)) for arm in arms)
    points = [(arm.arm, sign * found.mean, arm.train_flops) for arm, found in figures if found is not None]
    return frozenset(
        arm
        for arm, quality, flops in points
        if any(
            other_quality >= quality and other_flops <= flops and (other_quality, other_flops) != (quality, flops)
            for _, other_quality, other_flops in points
        )
    )


def operations_text(flops: float) -> str:
    """Return a number of operations as `8.4 TFLOP`."""
    unit, name = flop_unit(flops)
    return f"{flops / unit:.3g} {name}"


def flop_unit(flops: float) -> tuple[float, str]:
    """Return the largest unit that such a number of operations fills, and its name."""
    return next((found for found in UNITS if flops >= found[0]), UNITS[-1])
