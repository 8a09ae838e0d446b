"""The leaderboard as CSV, a value a cell, and as Markdown, for a reader."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from transferlib.comparison.arms import ArmResult, Spread
from transferlib.evaluation.metrics import METRIC_NAMES

NO_VALUE = "-"


def to_csv(arms: Sequence[ArmResult]) -> str:
    """Return a row an arm, in the leaderboard's order: mean and std of each metric on test and val, and the cost."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = [(split, name) for split in ("val", "test") for name in METRIC_NAMES]
    cost = ("trained_parameters", "seconds", "images_per_s", "peak_memory_bytes")
    header = ["arm", "architecture", "strategy", "num_seeds"]
    header += [f"{split}_{name}_{part}" for split, name in metrics for part in ("mean", "std")]
    writer.writerow([*header, "lr", *cost, "trials_done", "trials_failed"])
    for arm in arms:
        spreads = [arm.spread(*key) for key in metrics]
        values = [value for spread in spreads for value in _mean_and_std(spread)]
        rates = " ".join(f"{trial.seed}:{trial.lr!r}" for trial in arm.chosen)
        named = (arm.arm, arm.architecture, arm.strategy, len(arm.chosen))
        taken = (*(getattr(arm, name) for name in cost), arm.num_done, arm.num_failed)
        writer.writerow([*named, *values, rates, *taken])
    return text.getvalue()


def to_markdown(arms: Sequence[ArmResult], verdict: str, ranked_by: str) -> str:
    """Return the table for a reader, the verdict above it."""
    top5 = [arm.spread("val", "top5") for arm in arms]
    has_top5 = any(spread is not None and spread.by_seed for spread in top5)
    header = ["arm", "val accuracy", "test accuracy", "balanced", "macro-F1", *(["top-5"] if has_top5 else [])]
    header += ["log-loss", "ECE", "rates", "trained", "seconds", "images/s", "peak memory", "failed"]
    rows = [
        [
            arm.arm,
            spread_text(arm.spread("val", "accuracy")),
            *(spread_text(arm.spread("test", name)) for name in METRIC_NAMES if has_top5 or name != "top5"),
            rates_text(arm),
            f"{arm.trained_parameters:,}",
            f"{arm.seconds:,.1f}",
            f"{arm.images_per_s:,.0f}",
            f"{arm.peak_memory_bytes / 2**20:,.0f} MiB",
            str(arm.num_failed),
        ]
        for arm in arms
    ]
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    note = f"Ordered by the {ranked_by}; figures are on test unless the column says val. ± is the standard deviation"
    return "\n".join([verdict, "", *lines, "", f"{note} over seeds.", ""])


def spread_text(spread: Spread | None, digits: int = 3) -> str:
    """Return `0.953 ± 0.012`; without the spread where there is one seed."""
    if spread is None or spread.mean is None:
        return NO_VALUE
    mean = f"{spread.mean:.{digits}f}"
    return mean if spread.std is None else f"{mean} ± {spread.std:.{digits}f}"


def rates_text(arm: ArmResult) -> str:
    """Return the chosen rates by seed, one at the edge of its grid marked with *."""
    marked = [f"{trial.lr:.3g}{'*' if trial.edge in ('lowest', 'highest') else ''}" for trial in arm.chosen]
    return ", ".join(dict.fromkeys(marked)) or NO_VALUE


def _mean_and_std(spread: Spread | None) -> tuple[float | str, float | str]:
    if spread is None or spread.mean is None:
        return "", ""
    return spread.mean, "" if spread.std is None else spread.std
