"""The forest plot: how much better one arm is than another, in both readings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from transferlib.comparison.statistics import Inference, PairStatement
from transferlib.names import LOWER_IS_BETTER, METRIC_WORDS
from transferlib.report.svg import ACCENT, INK, MUTED, SURFACE, draw_svg

POINTS = 100
"""To a share."""
ROW_HEIGHT, ROW_HEIGHT_OF_FOLDS = 50, 66
MAX_PAIRS = 28
"""Of eight arms."""


def best_first(pairs: Sequence[PairStatement]) -> list[PairStatement]:
    """Return the pairs turned so that no difference is negative, the largest first.

    Args:
        pairs: In any order.
    """
    turned = [pair if pair.difference >= 0 else pair.swapped() for pair in pairs]
    return sorted(turned, key=lambda pair: (-pair.difference, pair.a, pair.b))


def shown_pairs(pairs: Sequence[PairStatement], best: str | None) -> list[PairStatement]:
    """Return the pairs that the page has room for: all, or of very many those of the best arm.

    Args:
        pairs: As `best_first` returns them.
        best: The arm with the best mean; None where nothing is judged.
    """
    if len(pairs) <= MAX_PAIRS:
        return list(pairs)
    return [pair for pair in pairs if best in (pair.a, pair.b)][:MAX_PAIRS]


def pair_names(pair: PairStatement, metric: str) -> tuple[str, str]:
    """Return the better arm of a pair of `best_first`, and the other: less log-loss is better.

    Args:
        pair: As `best_first` returns it.
        metric: One of `names.METRICS`.
    """
    return (pair.b, pair.a) if metric in LOWER_IS_BETTER else (pair.a, pair.b)


def draw_differences(pairs: Sequence[PairStatement], metric: str, margin: float, split_name: str) -> Markup:
    """Draw each pair's difference with its limits, for training again (filled) and for these models (hollow).

    Where there are folds, other training images are a square below.

    Args:
        pairs: As `best_first` returns them.
        metric: One of `names.METRICS`.
        margin: What counts as good enough, in the metric's units; drawn on both sides of zero.
        split_name: Of the images, as sentences have it.
    """
    is_loss, has_folds = metric in LOWER_IS_BETTER, any(pair.with_other_images for pair in pairs)
    title, first, step = (0.40, -0.14, 0.2) if has_folds else (0.34, 0.0, 0.24)
    scale = 1 if is_loss else POINTS
    unit = "nat" if is_loss else "points"

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        for side in (-margin, margin):
            axes.axvline(scale * side, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        for row, pair in enumerate(pairs):
            better, other = pair_names(pair, metric)
            value = scale * pair.difference
            anew = pair.if_trained_again
            if anew is not None:
                color = ACCENT if pair.is_separated else INK
                _draw_reading(axes, anew, value, row + first, scale, color=color, markerfacecolor=color, linewidth=2.2)
            height = row + first + (step if anew else 0.0)
            _draw_reading(axes, pair.these_models, value, height, scale, color=MUTED, markerfacecolor=SURFACE)
            if (others := pair.with_other_images) is not None:
                middle = scale * (others.low + others.high) / 2
                _draw_reading(axes, others, middle, height + step, scale, color=INK, markerfacecolor=INK, marker="s")
            name, place = f"{better} over {other}", axes.get_yaxis_transform()
            axes.text(0, row - title, name, transform=place, color=INK, bbox={"fc": SURFACE, "ec": "none", "pad": 1})
        axes.set_yticks([])
        axes.set_ylim(len(pairs) - 0.45, -0.75)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"better by, {unit} ({METRIC_WORDS[metric]} on {split_name})")

    row_height = ROW_HEIGHT_OF_FOLDS if has_folds else ROW_HEIGHT
    label = f"Differences of the arms in {METRIC_WORDS[metric]} with their 95 % limits"
    return draw_svg("differences", label, (390, 56 + row_height * len(pairs)), draw)


def _draw_reading(
    axes: Axes,
    found: Inference,
    value: float,
    height: float,
    scale: float,
    *,
    linewidth: float = 1.3,
    marker: str = "o",
    **style: Any,
) -> None:
    line = {key: style[key] for key in ("color",)}
    axes.plot([scale * found.low, scale * found.high], [height, height], linewidth=linewidth, **line)
    face = style["markerfacecolor"]
    axes.plot(
        [value],
        [height],
        marker,
        markersize=5.5 if marker == "o" else 4.5,
        markerfacecolor=face,
        markeredgecolor=style["color"],
    )
