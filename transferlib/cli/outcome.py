"""How a run ended, as text: the result table, the verdict, where the files are; or what is finished, and what next."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from transferlib.cli.resolve import find_runs_dir
from transferlib.cli.tables import fit_columns, text_table
from transferlib.errors import RunFolderError, UsageError
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
from transferlib.planning.plan import Plan
from transferlib.records import TrialKey, TrialResult, checked
from transferlib.runs import RunFolder, has_content, read_object, reading
from transferlib.spec import JobSpec
from transferlib.submissions import Submission
from transferlib.words import count, duration

LABEL_WIDTH = 13
PARTIAL_WIDTH = 100
"""Of what is said of a run without a result, characters."""
LEADERBOARD_SCHEMA = 2
HEADER = [
    "arm",
    "val",
    "test",
    "95 % limits",
    "log-loss",
    "rate",
    "trained",
    "GFLOP",
    "time",
    "ECE",
    "images/s",
    "failed",
]
"""The most wanted first: a narrow terminal shows as many as fit. Operations and time are of training one trial."""
SHORT_METRICS = {"accuracy": "acc", "balanced_accuracy": "bal acc", "macro_f1": "macro-F1", "log_loss": "log-loss"}


def result_lines(run: RunFolder, width: int) -> list[str]:
    """Return the leaderboard, the verdict and the files of a run that is done.

    Args:
        run: Its folder.
        width: Of the terminal, characters.

    Raises:
        RunFolderError: There is none, or a file that it is made of is damaged or of an older version.
    """
    leaderboard = read_leaderboard(run)
    edges, notes = _edges(run)
    with reading(run.leaderboard("json")):
        return list(_result_lines(run, leaderboard, edges, notes, width))


def _edges(run: RunFolder) -> tuple[set[tuple[str, str]], list[str]]:
    """Return the arms and seeds whose chosen rate lies at the edge of its grid, and what to say of that."""
    choice = read_object(run.choice) or {}
    with reading(run.choice):
        chosen, grids = choice.get("chosen", ()), choice.get("grids", {})
        at_edge = [trial for trial in chosen if trial["edge"] in ("lowest", "highest")]
        edges = {
            (str(trial["arm"]), key_of(trial).seed_name)
            for trial in at_edge
            if len(grids.get(trial["arm"], ())) != FEWEST_RATES
        }
    return edges, [EDGE_NOTE] if edges else [TWO_RATES_NOTE] if at_edge else []


def _result_lines(
    run: RunFolder, leaderboard: Mapping[str, Any], edges: Collection[tuple[str, str]], notes: Iterable[str], width: int
) -> Iterator[str]:
    yield from leaderboard_lines(leaderboard, edges, width)
    figures = (arm.get(leaderboard["metric"]) for arm in leaderboard["arms"])
    if any(figure and len(figure["by_seed"]) < MIN_SEEDS for figure in figures):
        yield FEW_SEEDS_NOTE
    yield from notes
    verdict = leaderboard["verdict"]
    for sentence in (*verdict["sentences"], *verdict["notes"]):
        yield ""
        yield from _wrapped(sentence, width)
    yield ""
    if (model := leaderboard["model"]) is not None:
        yield from _model_lines(run, leaderboard, model, width)
    for label, path in (("Report", run.report), ("Predictions", run.predictions)):
        place = _place(run, path)
        is_lost = place == shown(path) and not has_content(path)
        lost = f" is missing. `submit {run.verb} --resume {run.run_id}` makes it again." if is_lost else ""
        yield f"{label:<{LABEL_WIDTH}}{place}{lost}"


def saved_leaderboard(run: RunFolder) -> dict[str, Any] | None:
    """Return `leaderboard.json`; None where there is none yet.

    Raises:
        DamagedFileError: It is damaged.
    """
    path = run.leaderboard("json")
    found = read_object(path)
    with reading(path):
        if found is not None:
            _check_leaderboard(found)
    return found


def _check_leaderboard(found: Mapping[str, Any]) -> None:
    """Hold a leaderboard against what is read of it in many places.

    Raises:
        TypeError: A value is of another type.
        ValueError: Its metric is none.
    """
    model = checked(found.get("model"), (dict, NoneType), "model")
    if model is not None:
        for name, kind in (("arm", str), ("seed", int), ("val", (int, float))):
            checked(model.get(name), kind, f"model.{name}")
        test = checked(model.get("test"), (dict, NoneType), "model.test")
        if test is not None:
            checked(test.get("value"), (int, float), "model.test.value")
        for name in ("candidate", "fold"):
            checked(model.get(name, 0), int, f"model.{name}")
        checked(model.get("path", RunFolder.MODEL), str, "model.path")
    if found.get("schema") != LEADERBOARD_SCHEMA:
        return
    if checked(found.get("metric"), str, "metric") not in METRIC_WORDS:
        raise ValueError(f"metric is {found['metric']!r}, not one of {', '.join(METRIC_WORDS)}")
    verdict = checked(found.get("verdict"), dict, "verdict")
    for name in ("sentences", "notes"):
        for each in checked(verdict.get(name), list, f"verdict.{name}"):
            checked(each, str, f"verdict.{name}")
    for each in checked(found.get("arms"), list, "arms"):
        checked(each, dict, "arms")


def is_to_be_written_anew(run: RunFolder) -> bool:
    """Return whether a run has a result that is damaged or of an older version: its predictions give it again."""
    try:
        leaderboard = saved_leaderboard(run)
    except RunFolderError:
        return True
    return leaderboard is not None and leaderboard.get("schema") != LEADERBOARD_SCHEMA


def read_leaderboard(run: RunFolder) -> dict[str, Any]:
    """Return `leaderboard.json`.

    Raises:
        RunFolderError: There is none, it is damaged, or of an older version, which named another model.
    """
    leaderboard = saved_leaderboard(run)
    if leaderboard is None:
        raise RunFolderError(f"Run {run.run_id} has no result yet.")
    if leaderboard.get("schema") != LEADERBOARD_SCHEMA:
        raise RunFolderError(
            f"The result of {run.run_id} was written by an older version (leaderboard.json has schema "
            f"{leaderboard.get('schema')}, this reads {LEADERBOARD_SCHEMA}). `submit {run.verb} --resume {run.run_id}` "
            "writes it anew; nothing is trained again."
        )
    return leaderboard


def result_json(run: RunFolder, *, is_over: bool) -> dict[str, Any]:
    """Return what `--json` says of a result: where the model is, and the leaderboard; null where there is none.

    Args:
        run: Its folder.
        is_over: As for `model_place`.
    """
    return {"model": model_place(run, is_over=is_over), "leaderboard": saved_leaderboard(run)}


def model_place(run: RunFolder, *, is_over: bool = False) -> str | None:
    """Return where the model handed over is, an absolute path or a URI; None where there is none yet.

    Args:
        run: Its folder.
        is_over: Whether the job has ended: without a result the best of the finished trials is what there is to use.
    """
    if (leaderboard := saved_leaderboard(run)) is not None:
        model = leaderboard.get("model")
        if model is None or lost_model(run):
            return None
        return _place(run, run.path / model["path"], is_absolute=True)
    best = best_finished(run) if is_over else None
    return None if best is None else _place(run, run.trial(best.trial_id).best, is_absolute=True)


def lost_model(run: RunFolder) -> str:
    """Return what to say where a run that has a result hands over a model that is not there; empty where it is."""
    model = (saved_leaderboard(run) or {}).get("model")
    submission = Submission.load(run)
    if model is None or (submission is not None and submission.storage is not None):
        return ""
    path = run.path / model["path"]
    if has_content(path):
        return ""
    what = "is empty" if path.is_file() else "is missing"
    return f"{shown(path)} {what}. `submit {run.verb} --resume {run.run_id}` makes it again."


def best_finished(run: RunFolder) -> TrialResult | None:
    """Return the finished trial that is best on validation; None where there is none."""
    results = finished(run, Plan.load(run.plan)) if run.plan.exists() else []
    done = [result for result in results if result.state == "done"]
    return max(done, key=lambda result: (result.score, -result.val_loss), default=None)


def model_text(run: RunFolder) -> str | None:
    """Return which model a run hands over, in a line; None where there is none yet."""
    leaderboard = saved_leaderboard(run) or {}
    model = leaderboard.get("model")
    if model is None or leaderboard.get("schema") != LEADERBOARD_SCHEMA:
        return None
    name = METRIC_WORDS[leaderboard["metric"]]
    on_test = "" if model["test"] is None else f", {model['test']['value']:.3f} on test"
    return f"{model['arm']}, {training_words(model)}: {name} {model['val']:.3f} on validation{on_test}"


def _model_lines(run: RunFolder, leaderboard: Mapping[str, Any], model: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield the model handed over, and what its figure is to be held against."""
    name = METRIC_WORDS[leaderboard["metric"]]
    yield f"{'Model':<{LABEL_WIDTH}}{lost_model(run) or _place(run, run.path / model['path'])}"
    test, chance = model["test"], leaderboard["chance"]
    text = f"{model['arm']}, {training_words(model)}: best on validation of all ({name} {model['val']:.3f})"
    if test is not None:
        on = f"the {model['images']} test images of its fold" if "images" in model else "test"
        text += f"; on {on} {test['value']:.3f}, between {test['low']:.3f} and {test['high']:.3f}"
    if chance is not None:
        text += f"; chance is {chance['value']:.3f}"
    yield from _wrapped(f"{text}.", width, indent=LABEL_WIDTH)


def training_words(model: Mapping[str, Any]) -> str:
    """Return which training the model handed over comes from: "seed 3", or "seed 3, fold 2".

    Args:
        model: Of `leaderboard.json`.
    """
    return key_of(model).training


def key_of(trial: Mapping[str, Any]) -> TrialKey:
    """Return the key of a trial as `choice.json` and `leaderboard.json` name it."""
    return TrialKey.of_arm(trial["arm"], trial["seed"], trial.get("candidate", 0), trial.get("fold", 0))


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    space = " " * indent
    return textwrap.wrap(
        text, width, break_long_words=False, break_on_hyphens=False, initial_indent=space, subsequent_indent=space
    )


def _place(run: RunFolder, path: Path, *, is_absolute: bool = False) -> str:
    """Return where a file of a run is: here, or in the storage that the folder here mirrors the small files of."""
    submission = Submission.load(run)
    if path.exists() or submission is None or submission.storage is None:
        return str(path) if is_absolute else shown(path)
    return f"{submission.storage.rstrip('/')}/{run.run_id}/{path.relative_to(run.path).as_posix()}"


def leaderboard_lines(leaderboard: Mapping[str, Any], edges: Collection[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield the result table: ordered by validation, with test beside it.

    Args:
        leaderboard: `leaderboard.json`, schema 2.
        edges: Arms and seeds (as `TrialKey.seed_name` has them) whose rate lies at the edge of its grid.
        width: Of the terminal, characters.
    """
    metric = leaderboard["metric"]
    rows = [
        [
            arm["arm"],
            mean(arm["val"][metric]),
            mean(arm[metric]),
            limits(arm[metric]),
            mean(arm["accuracy" if metric == "log_loss" else "log_loss"]),
            _rates(arm, edges),
            _millions(arm["trained_parameters"]),
            f"{arm['train_flops'] / 1e9:,.0f}",
            duration(arm["seconds"]),
            mean(arm["ece"]),
            f"{arm['images_per_s']:,.0f}",
            str(arm["trials"]["failed"] or ""),
        ]
        for arm in leaderboard["arms"]
    ]
    if (chance := leaderboard.get("chance")) is not None:
        found = ["majority", NO_VALUE, f"{chance['value']:.3f}", f"{chance['low']:.3f} to {chance['high']:.3f}"]
        rows.append([*found, *[""] * (len(HEADER) - len(found))])
    header = [f"{title} {SHORT_METRICS[metric]}" if title in ("val", "test") else title for title in HEADER]
    if metric == "log_loss":
        header[header.index("log-loss")] = "test acc"
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    yield from fit_columns(header, rows, width)


def mean(metric: Mapping[str, Any] | None) -> str:
    """Return a metric's mean over seeds."""
    return NO_VALUE if metric is None or metric.get("mean") is None else f"{metric['mean']:.3f}"


def limits(metric: Mapping[str, Any] | None) -> str:
    """Return a metric's limits as `0.931 to 0.968`."""
    return NO_VALUE if metric is None or metric.get("low") is None else f"{metric['low']:.3f} to {metric['high']:.3f}"


def _rates(arm: Mapping[str, Any], edges: Collection[tuple[str, str]]) -> str:
    """Return the chosen rates, each once; one at the edge of its grid has a star."""
    chosen = {(rate, (arm["arm"], seed) in edges) for seed, rate in arm["lr"].items()}
    return " ".join(f"{rate:.2g}{'*' if is_edge else ''}" for rate, is_edge in sorted(chosen)) or NO_VALUE


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.1f}k"


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
        metric = JobSpec.load(run.spec).comparison.decided_metric
        sign = -1 if metric in LOWER_IS_BETTER else 1
        rows = [
            [
                r.trial_id,
                r.state,
                f"{r.epochs}/{plan.epochs}",
                f"{sign * r.score:.3f}" if r.state == "done" else NO_VALUE,
            ]
            for r in results
        ]
        yield from text_table(["trial", "state", "epochs", f"best val {SHORT_METRICS[metric]}"], rows, left=2)
    if (best := best_finished(run)) is not None:
        yield f"{'Model':<{LABEL_WIDTH}}{_place(run, run.trial(best.trial_id).best)}"
        text = (
            f"{best.key.arm}, {best.key.training}: best on validation of those finished. The test set is read, and the "
            "verdict made, when all are."
        )
        yield from _wrapped(text, PARTIAL_WIDTH, indent=LABEL_WIDTH)
    if run.report.exists():
        yield f"{'Report':<{LABEL_WIDTH}}{_place(run, run.report)}"
    num_trials = len(plan.tuning.expected({result.trial_id: result for result in finished(run, plan)}))
    done = f"{len(results)} of {count(num_trials, 'trial')} finished."
    yield f"{done} Go on with:"
    name = run.run_id if _is_usual_place(run) else shlex.quote(shown(run.path))
    yield f"  submit {verb} --resume {name}"


def _is_usual_place(run: RunFolder) -> bool:
    """Return whether the run is found by its id alone from the current folder."""
    try:
        return run.path.parent == find_runs_dir(None, Path.cwd())
    except UsageError:  # a submit.yaml that is being edited
        return False
