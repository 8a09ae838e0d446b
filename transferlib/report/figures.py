"""The report's plots: accuracy by seed, learning curves, confusion matrices, reliability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from transferlib.comparison.arms import ArmResult, Spread
from transferlib.evaluation.metrics import CalibrationBins
from transferlib.report.svg import GRID, INK, MUTED, SURFACE, draw_svg, series_color, series_dash

ACCENT_RGB = (0.14, 0.38, 0.78)
"""Of a confusion matrix's picture, which cannot take the page's own colour; reads on light and on dark."""
MAX_NUMBERED = 12
"""Classes up to which a matrix shows its counts."""
MAX_NAMED = 30
"""Classes up to which a matrix names its rows and columns."""
_LONGEST_NAME = 16
_LEVEL_LETTERS = 36
_STRONG = 0.55

Curves = Sequence[Sequence[float]]
"""One list of values an epoch for each seed."""


def draw_accuracies(arms: Sequence[ArmResult]) -> Markup:
    """Draw each arm's validation accuracy by seed with mean and spread, and test hollow beside it."""
    shown = [arm for arm in arms if arm.chosen]
    has_test = any(arm.test_metrics for arm in shown)

    def draw(axes: Axes) -> None:
        for row, arm in enumerate(shown):
            test = arm.spread("test", "accuracy") if arm.test_metrics else None
            height = row if test else row + 0.1
            _draw_spread(axes, arm.val_accuracy, height, series_color(row), filled=True)
            if test:
                _draw_spread(axes, test, row + 0.22, MUTED, filled=False)
            axes.text(0, row - 0.3, arm.arm, transform=axes.get_yaxis_transform(), color=INK)
        axes.set_yticks([])
        axes.set_ylim(len(shown) - 0.6, -0.65)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -0.02), min(high, 1.02))
        axes.set_xlabel("accuracy")

    beside = ", test accuracy beside it" if has_test else ""
    return draw_svg("accuracy", f"Validation accuracy of each arm by seed{beside}", (390, 52 + 52 * len(shown)), draw)


def _draw_spread(axes: Axes, spread: Spread, height: float, color: str, *, filled: bool) -> None:
    values = list(spread.by_seed.values())
    mean, std = spread.mean, spread.std
    if mean is not None and std is not None:
        axes.plot([mean - std, mean + std], [height, height], color=color, linewidth=1.4, alpha=0.75)
    if mean is not None and len(values) > 1:
        axes.plot([mean], [height], "|", color=color, markersize=11, markeredgewidth=2)
    face = color if filled else SURFACE
    size = 5.0 if filled else 4.0
    axes.plot(values, [height] * len(values), "o", markerfacecolor=face, markeredgecolor=color, markersize=size)


def draw_curves(name: str, label: str, curves: Mapping[str, Curves], order: Sequence[str]) -> Markup:
    """Draw one quantity over epochs: each arm's mean over seeds, the seeds thin behind it.

    Args:
        name: Of the plot, unique on the page.
        label: Of the vertical axis.
        curves: By arm.
        order: All arms, in the order of their colours.
    """

    def draw(axes: Axes) -> None:
        for arm, seeds in curves.items():
            number = order.index(arm)
            style: dict[str, Any] = {"color": series_color(number), "linestyle": series_dash(number)}
            for values in seeds if len(seeds) > 1 else ():
                axes.plot(range(1, len(values) + 1), values, linewidth=0.8, alpha=0.35, **style)
            # The mean ends with the shortest seed: past that it would be over other seeds.
            mean = [math.fsum(at) / len(at) for at in zip(*seeds, strict=False)]
            axes.plot(range(1, len(mean) + 1), mean, marker="o", markersize=3, **style)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)

    return draw_svg(name, f"{label} over epochs, by arm", (390, 250), draw)


def draw_confusion(name: str, arm: str, confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> Markup:
    """Draw which class was taken for which; a row's shade is the share of its class.

    Args:
        name: Of the plot, unique on the page.
        arm: Whose.
        confusion: int64 [K, K], rows are labels.
        classes: K names.
    """
    num_classes = len(classes)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    picture = np.ones((num_classes, num_classes, 4))
    picture[..., :3] = ACCENT_RGB
    # A floor for anything at all, so that a rare confusion is seen among many cells.
    picture[..., 3] = np.where(shares > 0, 0.08 + 0.92 * shares, 0.0)
    names = [_short(label) for label in classes]

    def draw(axes: Axes) -> None:
        axes.imshow(picture, interpolation="none", aspect="equal")
        axes.set_anchor("N")
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(True)
        if num_classes <= MAX_NAMED:
            size = 10.0 if num_classes <= MAX_NUMBERED else 7.5
            turn = 0 if num_classes * max(map(len, names)) <= _LEVEL_LETTERS else 90
            axes.set_xticks(range(num_classes), names, rotation=turn, fontsize=size)
            axes.set_yticks(range(num_classes), names, fontsize=size)
        else:
            axes.set(xticks=[], yticks=[])
        if num_classes <= MAX_NUMBERED:
            _write_counts(axes, confusion, shares)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")

    return draw_svg(name, f"Confusion matrix of {arm}, true classes by predicted classes", (330, 310), draw)


def _write_counts(axes: Axes, confusion: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(confusion), strict=True):
        color = "white" if shares[row, column] > _STRONG else INK
        axes.text(column, row, str(confusion[row, column]), color=color, ha="center", va="center", fontsize=10)


def draw_reliability(name: str, arm: str, bins: CalibrationBins, number: int) -> Markup:
    """Draw how often an arm is right against how sure it is; the diagonal is perfect calibration.

    Args:
        name: Of the plot, unique on the page.
        arm: Whose.
        bins: Over all seeds.
        number: Of the arm's colour.
    """

    def draw(axes: Axes) -> None:
        edges = np.linspace(0, 1, len(bins.num_images) + 1)
        held = bins.num_images > 0
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        share = bins.num_images / max(bins.num_images.max(), 1)
        axes.bar(edges[:-1], 0.22 * share, np.diff(edges), align="edge", color=GRID, linewidth=0)
        color = series_color(number)
        axes.plot(bins.confidence[held], bins.accuracy[held], marker="o", markersize=3.5, color=color)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="confidence", ylabel="share right")
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])

    return draw_svg(name, f"Reliability of {arm}: share right by confidence", (230, 210), draw)


def draw_costs(arms: Sequence[ArmResult]) -> Markup:
    """Draw validation accuracy against seconds of training, a point an arm."""
    shown = [arm for arm in arms if arm.chosen and arm.seconds > 0]

    def draw(axes: Axes) -> None:
        for arm in shown:
            number = list(arms).index(arm)
            mean, std = arm.val_accuracy.mean or 0.0, arm.val_accuracy.std
            axes.errorbar([arm.seconds], [mean], yerr=std, fmt="o", color=series_color(number), markersize=6)
        axes.set_xlim(0, 1.15 * max(arm.seconds for arm in shown))
        axes.set_xlabel("seconds of one training")
        axes.set_ylabel("validation accuracy")

    return draw_svg(
        "costs", "Validation accuracy against seconds of training", (390, max(190, 52 + 52 * len(shown))), draw
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
