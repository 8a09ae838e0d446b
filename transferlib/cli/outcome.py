"""How a run ended, as text: the result table, the verdict, where the files are; or what is finished, and what next."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transferlib.cli.tables import fit_columns, text_table
from transferlib.cli.words import count, duration
from transferlib.comparison.plan import Plan
from transferlib.records import TrialResult
from transferlib.runs import RunFolder, read_json

NO_VALUE = "-"


def result_lines(run: RunFolder, plan: Plan, width: int) -> Iterator[str]:
    """Yield the leaderboard, the verdict and the files of a run that is done.

    Args:
        run: Its folder.
        plan: Its plan.
        width: Of the terminal, characters.
    """
    leaderboard = read_json(run.leaderboard("json"))
    yield from leaderboard_lines(leaderboard, width)
    yield ""
    yield leaderboard["verdict"]
    yield ""
    yield from file_lines(run, plan, leaderboard)


def leaderboard_lines(leaderboard: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield the result table: ordered by validation, with test beside it.

    Args:
        leaderboard: `leaderboard.json`, schema 1.
        width: Of the terminal, characters.
    """
    header = [
        "arm",
        "val acc",
        "test acc",
        "log-loss",
        "rate",
        "trained",
        "time",
        "macro-F1",
        "ECE",
        "images/s",
        "failed",
    ]
    rows = [
        [
            arm["arm"],
            spread(arm["val"]["accuracy"]),
            spread(arm["accuracy"]),
            mean(arm["log_loss"]),
            _rates(arm),
            _millions(arm["trained_parameters"]),
            duration(arm["seconds"]),
            mean(arm["macro_f1"]),
            mean(arm["ece"]),
            f"{arm['images_per_s']:,.0f}",
            str(arm["trials"]["failed"] or ""),
        ]
        for arm in leaderboard["arms"]
    ]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    yield from fit_columns(header, rows, width)


def spread(metric: Mapping[str, Any] | None) -> str:
    """Return a metric over seeds as `0.953 ± 0.012`; without the spread where there is one seed."""
    if metric is None or metric.get("mean") is None:
        return NO_VALUE
    std = metric.get("std")
    several = len(metric.get("by_seed", {})) > 1 and std is not None
    return f"{metric['mean']:.3f} ± {std:.3f}" if several else f"{metric['mean']:.3f}"


def mean(metric: Mapping[str, Any] | None) -> str:
    """Return a metric's mean over seeds."""
    return NO_VALUE if metric is None or metric.get("mean") is None else f"{metric['mean']:.3f}"


def _rates(arm: Mapping[str, Any]) -> str:
    """Return the chosen rates, each once."""
    return ", ".join(f"{rate:.2g}" for rate in sorted(set(arm["lr"].values())))


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.1f}k"


def file_lines(run: RunFolder, plan: Plan, leaderboard: Mapping[str, Any]) -> Iterator[str]:
    """Yield where to look, to load and to read on."""
    yield f"Report       {shown(run.report)}"
    model = best_model(run, plan, leaderboard)
    if model is not None:
        yield f"Model        {shown(model)}"
    yield f"Predictions  {shown(run.predictions)}"


def best_model(run: RunFolder, plan: Plan, leaderboard: Mapping[str, Any]) -> Path | None:
    """Return the model file of the first arm, of the seed that is best on validation; None where there is none."""
    if not leaderboard["arms"]:
        return None
    arm = leaderboard["arms"][0]["arm"]
    results = [
        r for r in finished(run, plan) if r.arm == arm and r.state == "done" and run.trial(r.trial_id).best.exists()
    ]
    if not results:
        return None
    best = max(results, key=lambda result: (result.val_accuracy, -result.val_loss, -result.lr))
    return run.trial(best.trial_id).best


def shown(path: Path) -> str:
    """Return a path relative to the current folder where it lies below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def finished(run: RunFolder, plan: Plan) -> list[TrialResult]:
    """Return how the trials that have ended did, in the plan's order."""
    results = (run.trial(trial.trial_id).read_result() for trial in plan.trials)
    return [result for result in results if result is not None]


def partial_lines(run: RunFolder, plan: Plan, verb: str) -> Iterator[str]:
    """Yield what is finished of a run that was stopped, and how to go on.

    Args:
        run: Its folder.
        plan: Its plan.
        verb: compare or train.
    """
    results = [result for result in finished(run, plan) if result.state in ("done", "failed")]
    if results:
        rows = [
            [
                r.trial_id,
                r.state,
                f"{r.epochs}/{plan.epochs}",
                f"{r.val_accuracy:.3f}" if r.state == "done" else NO_VALUE,
            ]
            for r in results
        ]
        yield from text_table(["trial", "state", "epochs", "best val acc"], rows, left=2)
    if run.report.exists():
        yield f"Report       {shown(run.report)}"
    done = f"{len(results)} of {count(len(plan.trials), 'trial')} finished."
    is_usual_place = run.path.parent == Path.cwd() / "runs"
    yield f"{done} Go on with:"
    yield f"  submit {verb} --resume {run.run_id if is_usual_place else shown(run.path)}"
