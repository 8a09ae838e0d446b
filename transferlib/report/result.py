"""What the head of the report and its tables say: the title, the model handed over, the axis of the intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transferlib.comparison.arms import SHARES, ArmResult
from transferlib.comparison.leaderboard import Comparison
from transferlib.names import LOWER_IS_BETTER
from transferlib.runs import RunFolder
from transferlib.words import spelled


def title_of(comparison: Comparison) -> str:
    """Return the page's title: what was compared, and on how many classes."""
    arms = comparison.arms
    classes = f"{len(comparison.classes)} classes of images"
    if len(arms) == 1:
        return f"{arms[0].arm} on {classes}"
    architectures = list(dict.fromkeys(arm.architecture for arm in arms))
    strategies = list(dict.fromkeys(arm.strategy for arm in arms))
    networks = spelled(len(architectures), "network")
    if len(strategies) == 1:
        what = f"{networks} with the strategy {strategies[0]}"
    elif len(architectures) == 1:
        what = f"{spelled(len(strategies), 'way')} to transfer {architectures[0]}"
    else:
        what = f"{networks} and {spelled(len(strategies), 'way')} to transfer"
    return f"{what[0].upper()}{what[1:]}, compared on {classes}"


def describe_model(comparison: Comparison) -> dict[str, Any] | None:
    """Return what the page says of the model handed over; None without one."""
    if comparison.model is None:
        return None
    trial = comparison.model.trial
    return {
        "arm": trial.arm,
        "seed": trial.seed,
        "training": trial.key.training,
        "lr": trial.lr,
        "val": trial.val,
        "test": comparison.model.test,
        "path": RunFolder.MODEL if comparison.is_final else "",
        "num_images": len(comparison.model.images.labels),
        "num_groups": len(set(comparison.model.images.groups.tolist())),
    }


@dataclass(frozen=True)
class RangeAxis:
    """Say where values lie on the axis that the table's intervals share."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a value lies, 0 to 100."""
        return round(100 * min(max((value - self.low) / (self.high - self.low), 0.0), 1.0), 2)


def range_axis(comparison: Comparison, split: str) -> RangeAxis | None:
    """Return an axis that holds every arm's limits and chance; None where there is nothing to show.

    Args:
        comparison: The run's.
        split: Whose figures.
    """
    found = [arm.figure(split, comparison.metric) for arm in comparison.arms]
    values = [limit for figure in found if figure for limit in (figure.low, figure.high) if limit is not None]
    if not values or comparison.judgement is None:
        return None
    values.append(comparison.judgement.chance.value)
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.05
    low, high = low - room, high + room
    return RangeAxis(max(low, 0.0), min(high, 1.0)) if comparison.metric in SHARES else RangeAxis(low, high)


def matrix_rows(arms: Sequence[ArmResult], split: str, metric: str) -> dict[str, Any] | None:
    """Return the metric by architecture and strategy; None with one architecture.

    Args:
        arms: All.
        split: Whose figures.
        metric: One of `names.METRICS`.
    """
    architectures = sorted({arm.architecture for arm in arms})
    strategies = list(dict.fromkeys(arm.strategy for arm in sorted(arms, key=lambda arm: arm.trained_parameters)))
    if len(architectures) < 2:
        return None
    cells = {(arm.architecture, arm.strategy): arm.figure(split, metric) for arm in arms}
    known = {key: figure.mean for key, figure in cells.items() if figure is not None}
    return {
        "strategies": strategies,
        "rows": [
            (name, [(cells.get((name, strategy)), _shade(known, (name, strategy), metric)) for strategy in strategies])
            for name in architectures
        ],
    }


def _shade(known: dict[tuple[str, str], float], key: tuple[str, str], metric: str) -> int:
    """Return how strongly a cell is shaded, percent: 0 for the worst, more for the better."""
    low, high = min(known.values(), default=0.0), max(known.values(), default=0.0)
    if key not in known or low == high:
        return 0
    share = (known[key] - low) / (high - low)
    return round(100 * (1 - share if metric in LOWER_IS_BETTER else share))
