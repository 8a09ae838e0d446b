"""What the report shows, gathered from a run folder: plain values and pictures for the template to lay out."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from transferlib.comparison.arms import SHARES
from transferlib.comparison.choose import selected_by
from transferlib.comparison.leaderboard import Comparison, load_comparison
from transferlib.comparison.results import RunResults, read_final_results, read_results
from transferlib.comparison.verdict import SPLIT_OF
from transferlib.data.decode import Limits
from transferlib.data.manifest import Manifest
from transferlib.evaluation.metrics import METRIC_NAMES, Metrics, compute_metrics
from transferlib.names import FEW_SEEDS_NOTE, METRIC_WORDS, MIN_SEEDS
from transferlib.planning.plan import Plan
from transferlib.records import checked
from transferlib.report import figures
from transferlib.report.calibration import ArmCalibration, calibrate, chosen_predictions
from transferlib.report.confusion import confused_pairs, summed_confusion
from transferlib.report.copies import copy_content
from transferlib.report.cost import dominated_arms
from transferlib.report.data import data_content
from transferlib.report.forest import best_first, draw_differences, pair_names, shown_pairs
from transferlib.report.labels import label_content
from transferlib.report.mistakes import Thumbnails, find_mistakes
from transferlib.report.per_class import ClassFigures, per_class
from transferlib.report.result import describe_model, matrix_rows, range_axis, title_of
from transferlib.report.words import date_text
from transferlib.runs import RunFolder, read_object, reading
from transferlib.spec import JobSpec

MAX_MATRIX_CLASSES = 200
"""Past this a matrix is dust; the most confused pairs are listed in any case."""
PAIRS_FROM_CLASSES = 8


def report_content(run: RunFolder, *, with_pictures: bool = True) -> dict[str, Any]:
    """Return everything the template needs; it depends on nothing but the run folder and the images it names.

    Args:
        run: Holds spec, plan, manifest and trials; choice and predictions once the run is finished.
        with_pictures: Whether thumbnails and the picture of augmented images are wanted; without, no image is opened.

    Raises:
        DataError: Predictions are missing or are not the manifest's images.
    """
    spec = JobSpec.load(run.spec)
    plan = Plan.of_run(run)
    comparison = load_comparison(run)
    is_final = comparison.is_final
    found = read_final_results(run, comparison.choice.trial_ids) if is_final else read_results(run, ("val",))
    manifest = Manifest.load(run.manifest)
    split = "test" if is_final else "val"
    limits = Limits(spec.data.max_pixels, spec.data.max_file_bytes) if with_pictures else None
    thumbnails = Thumbnails(manifest.images(), limits)
    arm_names = [arm.arm for arm in comparison.arms]
    shown_trials = {trial.trial_id for arm in comparison.arms for trial in found.shown(arm.chosen, split)}
    calibration = calibrate(chosen_predictions(run, comparison, shown_trials), arm_names)
    dominated = dominated_arms(comparison.arms, split, comparison.metric)
    content = {
        "style": (Path(__file__).with_name("style.css")).read_text(encoding="utf-8"),
        "run": run.run_id,
        "title": title_of(comparison),
        "date": date_text(run.run_id),
        "spec": spec,
        "plan": plan,
        "comparison": comparison,
        "arms": comparison.arms,
        "arm_names": arm_names,
        "with_result": [arm for arm in comparison.arms if arm.chosen],
        "has_groups": len(set(comparison.images.groups.tolist())) < len(comparison.images.labels),
        "without_result": {(key.arm, key.seed, key.fold) for key in comparison.choice.without_result},
        "selected_by": selected_by(comparison.metric),
        "metric": comparison.metric,
        "metric_name": METRIC_WORDS[comparison.metric],
        "metrics": _metrics_shown(comparison),
        "majority": _majority(comparison),
        "split": split,
        "split_name": SPLIT_OF[split],
        "model": describe_model(comparison),
        "not_learnt": _not_learnt(comparison),
        "few_seeds": FEW_SEEDS_NOTE if len(comparison.seeds) < MIN_SEEDS else "",
        "axis": range_axis(comparison, split),
        "pairs": _pairs(comparison),
        "num_pairs": len(comparison.judgement.pairs) if comparison.judgement else 0,
        "matrix": matrix_rows(comparison.arms, split, comparison.metric),
        "dominated": dominated,
        "data": data_content(run, manifest, with_pictures=with_pictures),
        "plots": _plots(run, comparison, split, dominated),
        "calibration": calibration,
        "reliability": {of.arm: _reliability(of) for of in calibration},
        "per_class": _per_class(comparison, found, split),
        "confusions": _confusions(comparison, found, split),
        "copies": copy_content(comparison, found, manifest, thumbnails),
        "labels": label_content(comparison, found, thumbnails),
        "mistakes": _mistakes(comparison, found, split, thumbnails),
        "environment": _flat(read_object(run.environment) or {}),
        "weights": _origins(run),
        "spec_yaml": yaml.safe_dump(yaml.safe_load(run.spec.read_text()), sort_keys=False, allow_unicode=True),
    }
    return {**content, "figures_json": figures_json(content)}


def figures_json(content: dict[str, Any]) -> str:
    """Return the report's figures for programs: what `leaderboard.json` holds, each class's and the calibration's.

    It may stand inside a page: it holds no `<`.

    Args:
        content: As `report_content` returns it.
    """
    comparison: Comparison = content["comparison"]
    calibration: Sequence[ArmCalibration] = content["calibration"]
    classes: Sequence[ClassFigures] = content["per_class"]
    plain = {
        **comparison.to_plain(),
        "is_final": comparison.is_final,
        "split": content["split"],
        "dominated": sorted(content["dominated"]),
        "per_class": [figures.to_plain() for figures in classes],
        "calibration": [of.to_plain() for of in calibration],
        "confusion": {of["arm"]: of["counts"] for of in content["confusions"]},
        "mistakes": [_plain_mistake(mistake) for mistake in content["mistakes"]],
        "copies": {
            "pairs": [of["pair"].to_plain() for of in content["copies"]["pairs"]],
            **{name: content["copies"][name] for name in ("num_pairs", "num_leaked", "leaks")},
        },
        "suspected_labels": [_plain_label(label) for label in content["labels"]],
    }
    return json.dumps(plain, sort_keys=True, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")


def _plain_mistake(mistake: Any) -> dict[str, Any]:
    return {name: getattr(mistake, name) for name in ("image_id", "label", "predicted", "confidence")}


def _plain_label(label: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in label.items() if name != "thumbnail"}


def _metrics_shown(comparison: Comparison) -> dict[str, str]:
    """Return the columns beside the metric that decides, with their titles."""
    titles = {**METRIC_WORDS, "top5": "top-5", "ece": "ECE"}
    has_top5 = len(comparison.classes) > 5
    names = [name for name in METRIC_NAMES if name != comparison.metric and (has_top5 or name != "top5")]
    return {name: titles[name] for name in names}


def _majority(comparison: Comparison) -> dict[str, Any]:
    """Return what the predictor that looks at no image reaches, and the class that it always names."""
    images = comparison.images
    found = compute_metrics(images.labels, images.constant)
    return {
        "is_alone": int((images.constant[0] == images.constant[0].max()).sum()) == 1,
        "label": comparison.classes[int(images.constant[0].argmax())],
        "chance": None if comparison.judgement is None else comparison.judgement.chance,
        "metrics": {name: found.value(name) for name in METRIC_NAMES},
    }


def _not_learnt(comparison: Comparison) -> set[str]:
    judged = comparison.judgement
    return set() if judged is None else {arm.arm for arm in judged.arms if not arm.has_learnt}


def _pairs(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the rows of the forest plot and of the table below it."""
    metric = comparison.metric
    scale = 100 if metric in SHARES else 1
    pairs = best_first(comparison.judgement.pairs) if comparison.judgement else []
    shown = shown_pairs(pairs, comparison.verdict.best or comparison.arms[0].arm)
    return [{"names": pair_names(pair, metric), "pair": pair, "scale": scale} for pair in shown]


def _plots(run: RunFolder, comparison: Comparison, split: str, dominated: frozenset[str]) -> dict[str, Any]:
    shown = [arm for arm in comparison.arms if arm.chosen]
    if not shown:
        return {}
    order, metric = [arm.arm for arm in comparison.arms], comparison.metric
    with_figure = [arm for arm in shown if arm.figure(split, metric) is not None]
    curves = {arm.arm: [read_epochs(run, trial.trial_id) for trial in arm.chosen] for arm in shown}
    accuracy = {arm: [[row["val_accuracy"] for row in rows] for rows in seeds] for arm, seeds in curves.items()}
    loss = {arm: [[row["train_loss"] for row in rows] for rows in seeds] for arm, seeds in curves.items()}
    has_curves = any(len(rows) > 1 for seeds in curves.values() for rows in seeds)
    pairs = [row["pair"] for row in _pairs(comparison)]
    has_costs = len(with_figure) > 1 and any(arm.train_flops > 0 for arm in with_figure)
    margin, split_name = comparison.verdict.margin, SPLIT_OF[split]
    return {
        "differences": draw_differences(pairs, metric, margin, split_name) if pairs else "",
        "by_seed": figures.draw_by_seed(comparison.arms, metric, split) if with_figure else "",
        "costs": figures.draw_costs(comparison.arms, metric, split, dominated) if has_costs else "",
        "val_accuracy": figures.draw_curves("val-accuracy", "validation accuracy", accuracy, order, is_share=True)
        if has_curves
        else "",
        "train_loss": figures.draw_curves("train-loss", "training loss", loss, order) if has_curves else "",
    }


def read_epochs(run: RunFolder, trial_id: str) -> list[dict[str, float]]:
    """Return a trial's `metrics.csv`: the figures of each epoch; empty where there is none."""
    path = run.trial(trial_id).metrics
    if not path.exists():
        return []
    with reading(path), open(path, encoding="utf-8", newline="") as file:
        names = ("train_loss", "val_accuracy")
        return [{name: float(row[name]) for name in names} for row in csv.DictReader(file)]


def _origins(run: RunFolder) -> dict[str, str]:
    """Return where the weights of each network came from."""
    prepared = read_object(run.prepared) or {}
    with reading(run.prepared):
        return dict(checked(prepared.get("origins", {}), dict, "origins"))


def _reliability(of: ArmCalibration) -> Any:
    return figures.draw_reliability(f"reliability-{of.number}", of.arm, of.bins, of.number)


def _per_class(comparison: Comparison, found: RunResults, split: str) -> list[ClassFigures]:
    """Return the classes of the model handed over."""
    if comparison.model is None:
        return []
    trial = comparison.model.trial
    images, scores = found.images_of(trial.key, split), found.scores[trial.trial_id, split]
    return per_class(images.labels, scores.predicted, images.groups, comparison.classes)


def _confusions(comparison: Comparison, found: RunResults, split: str) -> list[dict[str, Any]]:
    drawn, classes = [], comparison.classes
    for number, arm in enumerate(comparison.arms):
        shown = found.shown(arm.chosen, split)
        metrics: list[Metrics] = [found.scores[trial.trial_id, split].metrics for trial in shown]
        if not metrics:
            continue
        counts = summed_confusion(metrics)
        is_drawn = len(classes) <= MAX_MATRIX_CLASSES
        plot = figures.draw_confusion(f"confusion-{number}", arm.arm, counts, classes) if is_drawn else ""
        pairs = confused_pairs(counts, classes) if len(classes) >= PAIRS_FROM_CLASSES else []
        drawn.append({"arm": arm.arm, "number": number, "plot": plot, "pairs": pairs, "counts": _cells(counts)})
    return drawn


def _cells(counts: npt.NDArray[np.int64]) -> list[list[int]]:
    """Return the cells that are not 0 as (true class, predicted class, images)."""
    return [[int(row), int(column), int(counts[row, column])] for row, column in np.argwhere(counts)]


def _mistakes(comparison: Comparison, found: RunResults, split: str, thumbnails: Thumbnails) -> Sequence[Any]:
    if comparison.model is None:
        return []
    trial = comparison.model.trial
    images, scores = found.images_of(trial.key, split), found.scores[trial.trial_id, split]
    return find_mistakes(scores, images, comparison.classes, thumbnails)


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
