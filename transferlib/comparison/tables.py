"""The leaderboard as CSV, a value a cell, and as Markdown, for a reader."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from transferlib.comparison.arms import ArmResult, Figure
from transferlib.evaluation.metrics import METRIC_NAMES
from transferlib.names import (
    EDGE_NOTE,
    FEW_SEEDS_NOTE,
    FEWEST_RATES,
    LOWER_IS_BETTER,
    METRIC_WORDS,
    MIN_SEEDS,
    NO_VALUE,
    TWO_RATES_NOTE,
)
from transferlib.words import count

if TYPE_CHECKING:
    from transferlib.comparison.leaderboard import Comparison

PARTS = ("mean", "low", "high", "seed_std")


def to_csv(arms: Sequence[ArmResult]) -> str:
    """Return a row an arm, in the leaderboard's order: each metric on val and test with its limits, and the cost."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = [(split, name) for split in ("val", "test") for name in METRIC_NAMES]
    cost = ("trained_parameters", "train_flops", "seconds", "images_per_s", "peak_memory_bytes")
    header = ["arm", "architecture", "strategy", "num_seeds"]
    header += [f"{split}_{name}_{part}" for split, name in metrics for part in PARTS]
    writer.writerow([*header, "lr", *cost, "trials_done", "trials_failed"])
    for arm in arms:
        figures = [arm.figure(*key) for key in metrics]
        values = [None if figure is None else getattr(figure, part) for figure in figures for part in PARTS]
        rates = " ".join(f"{seed}:{lr!r}" for seed, lr in arm.rates.items())
        counted = arm.figure("val", "accuracy")
        named = (arm.arm, arm.architecture, arm.strategy, 0 if counted is None else len(counted.by_seed))
        taken = (*(getattr(arm, name) for name in cost), arm.num_done, arm.num_failed)
        writer.writerow([*named, *values, rates, *taken])
    return text.getvalue()


def to_markdown(comparison: Comparison) -> str:
    """Return the verdict, the model and the table for a reader."""
    arms, metric = comparison.arms, comparison.metric
    has_two_rates = all(len(rates) == FEWEST_RATES for rates in comparison.choice.grids.values())
    is_at_edge = any("*" in rates_text(arm) for arm in arms)
    has_top5 = any(arm.figure("val", "top5") for arm in arms)
    names = [metric, *(name for name in METRIC_NAMES if name != metric and (has_top5 or name != "top5"))]
    header = ["arm", f"val {METRIC_WORDS[metric]}", *(_title(name) for name in names)]
    header += ["rates", "trained", "GFLOP", "seconds", "images/s", "peak memory", "failed"]
    rows = [
        [
            arm.arm,
            figure_text(arm.figure("val", metric)),
            *(figure_text(arm.figure("test", name)) for name in names),
            rates_text(arm, is_marked=not has_two_rates),
            f"{arm.trained_parameters:,}",
            f"{arm.train_flops / 1e9:,.0f}",
            f"{arm.seconds:,.1f}",
            f"{arm.images_per_s:,.0f}",
            f"{arm.peak_memory_bytes / 2**20:,.0f} MiB",
            str(arm.num_failed),
        ]
        for arm in arms
    ]
    if comparison.judgement is not None:
        chance = comparison.judgement.chance
        found = ["majority", NO_VALUE, f"{chance.value:.3f} ({chance.low:.3f} to {chance.high:.3f})"]
        rows.append([*found, *[""] * (len(header) - len(found))])
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    notes = [
        f"Ordered by the {comparison.ranked_by}; figures are on test unless the column says val.",
        "In brackets: 95 % limits, for all arms at once.",
        *([FEW_SEEDS_NOTE] if len(comparison.seeds) < MIN_SEEDS else []),
        *([TWO_RATES_NOTE if has_two_rates else EDGE_NOTE] if is_at_edge else []),
    ]
    return "\n".join([comparison.verdict.text, "", *model_lines(comparison), "", *lines, "", *notes, ""])


def model_lines(comparison: Comparison) -> list[str]:
    """Return what is said of the model handed over, and what it was measured on."""
    model, images = comparison.model, comparison.images
    judged, name = comparison.judgement, METRIC_WORDS[comparison.metric]
    if model is None:
        return []
    trial = model.trial
    value = f"{name} {trial.val:.3f} on validation"
    if model.test is not None:
        of_fold = f" (the {len(model.images.labels):,} images of its fold)" if trial.fold else ""
        value += f", {model.test.value:.3f} ({model.test.low:.3f} to {model.test.high:.3f}) on test{of_fold}"
    lines = [f"Model: {trial.arm}, {trial.key.training}: {value}."]
    if judged is not None:
        majority = comparison.classes[int(images.constant[0].argmax())]
        lines.append(
            f"Chance ({answering(comparison.metric, majority)}): {name} {judged.chance.value:.3f} "
            f"({judged.chance.low:.3f} to {judged.chance.high:.3f})."
        )
        folds = f", {comparison.num_folds} folds" if comparison.num_folds > 1 else ""
        lines.append(
            f"{len(images.labels):,} {'test' if comparison.is_final else 'validation'} images, "
            f"{count(len(comparison.seeds), 'seed')}{folds}."
        )
    return lines


def answering(metric: str, majority: str) -> str:
    """Return what the predictor that looks at no image does: for a loss it gives the classes' shares."""
    return "answering with the classes' shares" if metric in LOWER_IS_BETTER else f"always {majority!r}"


def figure_text(figure: Figure | None, digits: int = 3) -> str:
    """Return `0.953 (0.931 to 0.968)`; the mean alone where there are no limits."""
    if figure is None:
        return NO_VALUE
    mean = f"{figure.mean:.{digits}f}"
    if figure.low is None or figure.high is None:
        return mean
    return f"{mean} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def rates_text(arm: ArmResult, *, is_marked: bool = True) -> str:
    """Return the chosen rates, each once, one at the edge of its grid marked with *."""
    marked = [
        f"{trial.lr:.3g}{'*' if is_marked and trial.edge in ('lowest', 'highest') else ''}" for trial in arm.chosen
    ]
    return ", ".join(dict.fromkeys(marked)) or NO_VALUE


def _title(name: str) -> str:
    return METRIC_WORDS.get(name, {"top5": "top-5", "ece": "ECE"}.get(name, name))
