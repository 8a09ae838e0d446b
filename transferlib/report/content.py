"""What the report shows, gathered from a run folder: plain values and pictures for the template to lay out."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from transferlib.comparison.arms import RANKED_BY, ArmResult
from transferlib.comparison.choose import SELECTED_BY
from transferlib.comparison.leaderboard import Comparison, load_comparison
from transferlib.comparison.results import read_arm_predictions
from transferlib.data.decode import Limits
from transferlib.data.manifest import Manifest
from transferlib.evaluation.metrics import METRIC_NAMES, calibration_bins, score_images
from transferlib.planning.plan import Plan
from transferlib.report import figures
from transferlib.report.confusion import class_recalls, confused_pairs, summed_confusion
from transferlib.report.data import data_content
from transferlib.report.mistakes import Mistake, find_mistakes
from transferlib.report.words import date_text
from transferlib.runs import RunFolder, read_json
from transferlib.spec import JobSpec

MAX_MATRIX_CLASSES = 200
"""Past this a matrix is dust; the most confused pairs are listed in any case."""
PAIRS_FROM_CLASSES = 8
METRIC_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "macro_f1": "macro-F1",
    "top5": "top-5",
    "log_loss": "log-loss",
    "ece": "ECE",
}


def report_content(run: RunFolder) -> dict[str, Any]:
    """Return everything the template needs.

    Raises:
        DataError: Predictions are missing or are not the manifest's images.
    """
    spec = JobSpec.load(run.spec)
    plan = Plan.from_json(run.plan.read_text())
    comparison = load_comparison(run)
    manifest = Manifest.load(run.manifest)
    split = "test" if comparison.is_final else "val"
    has_top5 = len(comparison.classes) > 5
    return {
        "style": (Path(__file__).with_name("style.css")).read_text(encoding="utf-8"),
        "run": run.run_id,
        "date": date_text(run.run_id),
        "spec": spec,
        "plan": plan,
        "comparison": comparison,
        "arms": comparison.arms,
        "with_result": [arm for arm in comparison.arms if arm.chosen],
        "ranked_by": RANKED_BY,
        "selected_by": SELECTED_BY,
        "metrics": {name: METRIC_TITLES[name] for name in METRIC_NAMES if has_top5 or name != "top5"},
        "split": split,
        "split_name": {"test": "test", "val": "validation"}[split],
        "data": data_content(run, manifest),
        "plots": _plots(run, comparison, split),
        "confusions": [_confusion(arm, number, comparison, split) for number, arm in _shown(comparison)],
        "mistakes": _mistakes(run, spec, comparison, manifest, split),
        "model": _model_file(run, comparison),
        "environment": _flat(read_json(run.environment) or {}),
        "weights": (read_json(run.path / "prepared.json") or {}).get("origins", {}),
        "spec_yaml": yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True),
    }


def _shown(comparison: Comparison) -> list[tuple[int, ArmResult]]:
    """Return the arms that have a result, each with the number of its colour."""
    return [(number, arm) for number, arm in enumerate(comparison.arms) if arm.chosen]


def _plots(run: RunFolder, comparison: Comparison, split: str) -> dict[str, Any]:
    shown = _shown(comparison)
    if not shown:
        return {}
    order = [arm.arm for arm in comparison.arms]
    curves = {arm.arm: [read_epochs(run, trial.trial_id) for trial in arm.chosen] for _, arm in shown}
    accuracy = {arm: [[row["val_accuracy"] for row in rows] for rows in seeds] for arm, seeds in curves.items()}
    loss = {arm: [[row["train_loss"] for row in rows] for rows in seeds] for arm, seeds in curves.items()}
    return {
        "accuracies": figures.draw_accuracies(comparison.arms),
        "val_accuracy": figures.draw_curves("val-accuracy", "validation accuracy", accuracy, order),
        "train_loss": figures.draw_curves("train-loss", "training loss", loss, order),
        "costs": figures.draw_costs(comparison.arms) if any(arm.seconds > 0 for _, arm in shown) else "",
        "reliability": [(arm.arm, number, _reliability(run, arm, number, split)) for number, arm in shown],
    }


def read_epochs(run: RunFolder, trial_id: str) -> list[dict[str, float]]:
    """Return a trial's `metrics.csv`: the figures of each epoch; empty where there is none."""
    path = run.trial(trial_id).metrics
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        names = ("train_loss", "val_accuracy")
        return [{name: float(row[name]) for name in names} for row in csv.DictReader(file)]


def _reliability(run: RunFolder, arm: ArmResult, number: int, split: str) -> Any:
    tables = read_arm_predictions(run, [trial.trial_id for trial in arm.chosen], split)
    scores = [score_images(table.labels, table.logits) for table in tables]
    together = type(scores[0])(*(np.concatenate(column) for column in zip(*scores, strict=True)))
    return figures.draw_reliability(f"reliability-{number}", arm.arm, calibration_bins(together), number)


def _confusion(arm: ArmResult, number: int, comparison: Comparison, split: str) -> dict[str, Any]:
    metrics = arm.test_metrics if split == "test" else arm.val_metrics
    confusion, classes = summed_confusion(list(metrics.values())), comparison.classes
    is_drawn = len(classes) <= MAX_MATRIX_CLASSES
    return {
        "arm": arm.arm,
        "number": number,
        "plot": figures.draw_confusion(f"confusion-{number}", arm.arm, confusion, classes) if is_drawn else "",
        "pairs": confused_pairs(confusion, classes) if len(classes) >= PAIRS_FROM_CLASSES else [],
        "hardest": class_recalls(confusion, classes) if len(classes) >= PAIRS_FROM_CLASSES else [],
    }


def _mistakes(
    run: RunFolder, spec: JobSpec, comparison: Comparison, manifest: Manifest, split: str
) -> Sequence[Mistake]:
    arm = comparison.recommended
    if arm is None:
        return []
    tables = list(read_arm_predictions(run, [trial.trial_id for trial in arm.chosen], split))
    limits = Limits(spec.data.max_pixels, spec.data.max_file_bytes)
    return find_mistakes(tables, manifest.images(), split, limits)


def _model_file(run: RunFolder, comparison: Comparison) -> str:
    """Return the recommended arm's model that is best on validation, relative to the run folder; empty without one."""
    arm = comparison.recommended
    if arm is None:
        return ""
    best = min(arm.chosen, key=lambda trial: (-trial.val_accuracy, trial.val_log_loss, trial.lr))
    return run.trial(best.trial_id).best.relative_to(run.path).as_posix()


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as rows of a table."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        rows += _flat(value, f"{prefix}{key} · ") if isinstance(value, dict) else [(f"{prefix}{key}", _plain(value))]
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
