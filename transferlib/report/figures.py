"""The report's plots: the metric by seed and against cost, learning curves, confusion matrices, reliability."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from transferlib.comparison.arms import SHARES, ArmResult, Figure
from transferlib.comparison.verdict import SPLIT_OF
from transferlib.evaluation.metrics import CalibrationBins
from transferlib.names import METRIC_WORDS
from transferlib.report.cost import flop_unit
from transferlib.report.svg import GRID, INK, MUTED, SURFACE, draw_svg, series_color, series_dash

ACCENT_RGB = (0.14, 0.38, 0.78)
"""Of a confusion matrix's picture, which cannot take the page's own colour; reads on light and on dark."""
MAX_NUMBERED = 12
"""Classes up to which a matrix shows its counts."""
MAX_NAMED = 30
"""Classes up to which a matrix names its rows and columns."""
LEAST_SPAN = 0.1
"""Of an axis of shares: less would blow up what is not there."""
_LONGEST_NAME = 16
_LEVEL_LETTERS = 36
_STRONG = 0.55

Curves = Sequence[Sequence[float]]
"""One list of values an epoch for each seed."""


def draw_by_seed(arms: Sequence[ArmResult], metric: str, split: str) -> Markup:
    """Draw each arm's metric seed by seed with its limits, and validation hollow below it where test was read.

    Args:
        arms: All, in the order of their colours; those without a result are left out.
        metric: One of `names.METRICS`.
        split: test, or val while test was not read.
    """
    shown = [(number, arm) for number, arm in enumerate(arms) if arm.chosen]

    def draw(axes: Axes) -> None:
        for row, (number, arm) in enumerate(shown):
            figure, val = arm.figure(split, metric), arm.figure("val", metric)
            if figure is not None:
                _draw_figure(axes, figure, row, series_color(number), filled=True)
            if split == "test" and val is not None:
                _draw_figure(axes, val, row + 0.24, MUTED, filled=False)
            axes.text(0, row - 0.32, arm.arm, transform=axes.get_yaxis_transform(), color=INK)
        axes.set_yticks([])
        axes.set_ylim(len(shown) - 0.6, -0.65)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        if metric in SHARES:
            axes.set_xlim(*_within_shares(*axes.get_xlim()))
        axes.set_xlabel(METRIC_WORDS[metric])

    return draw_svg("by-seed", f"{METRIC_WORDS[metric]} of each arm by seed", (390, 52 + 54 * len(shown)), draw)


def _draw_figure(axes: Axes, figure: Figure, height: float, color: str, *, filled: bool) -> None:
    values = list(figure.by_seed.values())
    if filled and figure.low is not None and figure.high is not None:
        axes.plot([figure.low, figure.high], [height, height], color=color, linewidth=1.4, alpha=0.75)
        axes.plot([figure.mean], [height], "|", color=color, markersize=11, markeredgewidth=2)
    face = color if filled else SURFACE
    size = 5.0 if filled else 4.0
    axes.plot(values, [height] * len(values), "o", markerfacecolor=face, markeredgecolor=color, markersize=size)


def _within_shares(low: float, high: float) -> tuple[float, float]:
    """Return an axis that never shows a share below 0 or above 1; what lies on its end is drawn in full."""
    high = min(high, 1.0)
    return max(min(low, high - LEAST_SPAN), 0.0), high


def draw_curves(
    name: str, label: str, curves: Mapping[str, Curves], order: Sequence[str], *, is_share: bool = False
) -> Markup:
    """Draw one quantity over epochs: each arm's mean over seeds, the seeds thin behind it.

    Args:
        name: Of the plot, unique on the page.
        label: Of the vertical axis.
        curves: By arm.
        order: All arms, in the order of their colours.
        is_share: The quantity cannot pass 1, and neither does its axis.
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
        longest = max((len(values) for seeds in curves.values() for values in seeds), default=1)
        axes.set_xlim(0.8, longest + 0.2)
        if is_share:
            axes.set_ylim(*_within_shares(*axes.get_ylim()))
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
    """Draw how often an arm is right against how sure it is, larger where more images are; empty bins are left out.

    Args:
        name: Of the plot, unique on the page.
        arm: Whose.
        bins: Over all seeds.
        number: Of the arm's colour.
    """

    held = np.flatnonzero(bins.num_images)
    runs = np.split(held, np.flatnonzero(np.diff(held) > 1) + 1)
    share = bins.num_images / max(bins.num_images.max(), 1)

    def draw(axes: Axes) -> None:
        edges = np.linspace(0, 1, len(bins.num_images) + 1)
        color = series_color(number)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.bar(edges[held], 0.22 * share[held], np.diff(edges)[held], align="edge", color=GRID, linewidth=0)
        for run in runs:  # a line over a bin without images would be a claim about it
            axes.plot(bins.confidence[run], bins.accuracy[run], color=color, linewidth=1.4)
        axes.scatter(bins.confidence[held], bins.accuracy[held], s=8 + 40 * share[held], color=color, zorder=3)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="confidence", ylabel="share right")
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])

    return draw_svg(name, f"Reliability of {arm}: share right by confidence", (230, 210), draw)


def draw_costs(arms: Sequence[ArmResult], metric: str, split: str, dominated: Collection[str]) -> Markup:
    """Draw the metric with its limits against the operations of one training, a point an arm.

    Args:
        arms: All, in the order of their colours; those without a result are left out.
        metric: One of `names.METRICS`.
        split: Whose figures.
        dominated: Arms that are drawn grey.
    """
    figures = ((number, arm, arm.figure(split, metric)) for number, arm in enumerate(arms))
    shown = [(number, arm, found) for number, arm, found in figures if found is not None and arm.train_flops > 0]
    largest = max(arm.train_flops for _, arm, _ in shown)
    unit, name = flop_unit(largest)

    def draw(axes: Axes) -> None:
        for number, arm, found in shown:
            color = MUTED if arm.arm in dominated else series_color(number)
            face = SURFACE if arm.arm in dominated else color
            cost = arm.train_flops / unit
            if found.low is not None and found.high is not None:
                axes.plot([cost, cost], [found.low, found.high], color=color, linewidth=1.3)
            axes.plot([cost], [found.mean], "o", markersize=6.5, markerfacecolor=face, markeredgecolor=color)
            if arm.arm in dominated:
                side, away = ("right", -8) if arm.train_flops > largest / 2 else ("left", 8)
                axes.annotate(
                    arm.arm,
                    (cost, found.mean),
                    xytext=(away, 0),
                    textcoords="offset points",
                    color=MUTED,
                    ha=side,
                    va="center",
                    fontsize=9,
                )
        axes.set_xlim(0, 1.12 * largest / unit)
        if metric in SHARES:
            axes.set_ylim(*_within_shares(*axes.get_ylim()))
        axes.set_xlabel(f"operations of one training, {name}")
        axes.set_ylabel(f"{METRIC_WORDS[metric]} on {SPLIT_OF[split]}")

    label = f"{METRIC_WORDS[metric]} against the operations of one training"
    return draw_svg("costs", label, (390, max(230, 52 + 52 * min(len(shown), 4))), draw)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
