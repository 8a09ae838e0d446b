"""How a run ended, as text: the result table, the verdict, where the files are; or what is finished, and what next."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transferlib.cli.resolve import find_runs_dir
from transferlib.cli.tables import fit_columns, text_table
from transferlib.cli.words import count, duration
from transferlib.comparison.plan import Plan
from transferlib.errors import UsageError
from transferlib.records import TrialResult
from transferlib.runs import RunFolder, read_json
from transferlib.submissions import Submission

NO_VALUE = "-"
HEADER = ["arm", "val acc", "test acc", "log-loss", "rate", "trained", "time", "macro-F1", "ECE", "images/s", "failed"]
"""The most wanted first: a narrow terminal shows as many as fit. Time is of training one chosen trial."""
EDGE_NOTE = "* at the edge of the rates tried: a rate beyond it may do better (--lr-candidates)."


def result_lines(run: RunFolder, plan: Plan, width: int) -> Iterator[str]:
    """Yield the leaderboard, the verdict and the files of a run that is done.

    Args:
        run: Its folder.
        plan: Its plan.
        width: Of the terminal, characters.
    """
    leaderboard, chosen = read_json(run.leaderboard("json")), read_json(run.choice)["chosen"]
    edges = {(trial["arm"], str(trial["seed"])) for trial in chosen if trial["edge"] in ("lowest", "highest")}
    yield from leaderboard_lines(leaderboard, edges, width)
    if edges:
        yield EDGE_NOTE
    yield ""
    yield from textwrap.wrap(leaderboard["verdict"], width, break_long_words=False, break_on_hyphens=False)
    yield ""
    yield f"Report       {shown(run.report)}"
    model = best_model(run, leaderboard, chosen)
    for label, path in (("Model", model), ("Predictions", run.predictions)):
        if path is not None:
            yield f"{label:<13}{_place(run, path)}"


def _place(run: RunFolder, path: Path) -> str:
    """Return where a file of a run is: here, or in the storage that the folder here mirrors the small files of."""
    submission = Submission.load(run)
    if path.exists() or submission is None or submission.storage is None:
        return shown(path)
    return f"{submission.storage.rstrip('/')}/{run.run_id}/{path.relative_to(run.path).as_posix()}"


def leaderboard_lines(leaderboard: Mapping[str, Any], edges: Collection[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield the result table: ordered by validation, with test beside it.

    Args:
        leaderboard: `leaderboard.json`, schema 1.
        edges: Arms and seeds whose rate lies at the edge of its grid.
        width: Of the terminal, characters.
    """
    rows = [
        [
            arm["arm"],
            spread(arm["val"]["accuracy"]),
            spread(arm["accuracy"]),
            mean(arm["log_loss"]),
            _rates(arm, edges),
            _millions(arm["trained_parameters"]),
            duration(arm["seconds"]),
            mean(arm["macro_f1"]),
            mean(arm["ece"]),
            f"{arm['images_per_s']:,.0f}",
            str(arm["trials"]["failed"] or ""),
        ]
        for arm in leaderboard["arms"]
    ]
    header = HEADER
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


def _rates(arm: Mapping[str, Any], edges: Collection[tuple[str, str]]) -> str:
    """Return the chosen rates, each once; one at the edge of its grid has a star."""
    chosen = {(rate, (arm["arm"], seed) in edges) for seed, rate in arm["lr"].items()}
    return " ".join(f"{rate:.2g}{'*' if is_edge else ''}" for rate, is_edge in sorted(chosen)) or NO_VALUE


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.1f}k"


def best_model(run: RunFolder, leaderboard: Mapping[str, Any], chosen: Sequence[Mapping[str, Any]]) -> Path | None:
    """Return the model file of the recommended arm, of the seed that is best on validation; None where there is none.

    It need not be here where runs lie in a storage.

    Args:
        run: Its folder.
        leaderboard: `leaderboard.json`; its first arm counts where `status.json` recommends none.
        chosen: Of `choice.json`.
    """
    if not leaderboard["arms"]:
        return None
    arm = (read_json(run.status) or {}).get("recommended") or leaderboard["arms"][0]["arm"]
    submission = Submission.load(run)
    is_elsewhere = submission is not None and submission.storage is not None
    trials = [
        trial
        for trial in chosen
        if trial["arm"] == arm and (is_elsewhere or run.trial(trial["trial_id"]).best.exists())
    ]
    if not trials:
        return None
    best = max(trials, key=lambda trial: (trial["val_accuracy"], -trial["val_log_loss"]))
    return run.trial(best["trial_id"]).best


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
    yield f"{done} Go on with:"
    yield f"  submit {verb} --resume {run.run_id if _is_usual_place(run) else shown(run.path)}"


def _is_usual_place(run: RunFolder) -> bool:
    """Return whether the run is found by its id alone from the current folder."""
    try:
        return run.path.parent == find_runs_dir(None, Path.cwd())
    except UsageError:  # a submit.yaml that is being edited
        return False
