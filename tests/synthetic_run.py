"""Writes a run folder as a finished job leaves it, without training: pictures, manifest, trials, choice and result.

Deterministic: the logits come from a skill of each arm, a difficulty of each image and noise keyed by the trial.
"""

from __future__ import annotations

import colorsys
import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from transferlib.comparison.choose import choose_candidates
from transferlib.comparison.leaderboard import write_leaderboard
from transferlib.data.decode import Limits
from transferlib.data.facts import inspect_files
from transferlib.data.images import ImageTable
from transferlib.data.manifest import Manifest
from transferlib.data.sources import list_images
from transferlib.evaluation.metrics import compute_metrics
from transferlib.evaluation.predictions import Predictions, merge_predictions
from transferlib.names import LOWER_IS_BETTER
from transferlib.planning.cost import Cost
from transferlib.planning.plan import Plan
from transferlib.records import EpochRecord, TrialKey, TrialResult, TrialSpec
from transferlib.runs import RunFolder, write_json
from transferlib.spec import JobSpec

CLASSES = ("daisy", "dandelion", "rose", "sunflower")
SKILLS = {"feature_extraction": 1.6, "last_layers": 2.6, "full": 2.65, "scratch": 0.7}
SECONDS = {"feature_extraction": 4.0, "last_layers": 9.0, "full": 21.0, "scratch": 20.0}
TRAINED = {"feature_extraction": 2_052, "last_layers": 8_395_780, "full": 11_178_564, "scratch": 11_178_564}
RATES = (0.01, 0.0316, 0.1)
EPOCHS = 6


@dataclass(frozen=True)
class Story:
    """Say what kind of run to write."""

    strategies: tuple[str, ...] = ("feature_extraction", "last_layers", "full")
    seeds: tuple[int, ...] = (0, 1, 2)
    num_candidates: int = 3
    classes: tuple[str, ...] = CLASSES
    per_class: tuple[int, int, int] = (3, 10, 12)
    """Images a class in train, val, test."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reason by trial id."""
    unfinished: tuple[str, ...] = ()
    """Trial ids without a result; the run is then one that was stopped."""
    with_broken_file: bool = True
    metric: str = "accuracy"
    margin: float = 0.02
    architectures: tuple[str, ...] = ("resnet18",)
    epochs: int = EPOCHS
    augmentation: str = "standard"
    skill: float = 1.0
    """Of all arms; 0: they guess."""
    folds: int | None = None
    """Cut all images into so many; the pictures then lie in class folders only."""
    num_mislabelled: int = 0
    """Test images that every trial takes for the class after their label's, as if they were labelled wrongly."""
    near_duplicates: str = "off"
    """As in the spec; off: the pictures are one drawing a class, in other colours."""


def write_run(folder: Path, story: Story | None = None) -> RunFolder:
    """Write pictures to `folder/images` and a run to `folder/runs/<id>`; return the run."""
    story = story or Story()
    run = RunFolder(folder / "runs" / "20261125-020000-compare-5eed")
    (run.path / "trials").mkdir(parents=True)
    run.log.mkdir()
    root = write_pictures(folder / "images", story)
    spec = _spec(root, story)
    listing = list_images(root)
    facts = inspect_files([e.uri for e in listing.entries], Limits(10**6, 10**6))
    manifest = Manifest.build(listing, facts, spec.data)
    manifest.save(run.manifest)
    run.spec.write_text(spec.to_yaml())
    trials = _trials(story)
    run.plan.write_text(_plan(trials, story).to_json())
    write_json(run.environment, _environment())
    for trial in trials:
        _write_trial(run, trial, story, manifest.images(trial.key))
    if story.unfinished:
        run.set_status("stopped", exit_code=5, error="Stopped.")
        return run
    if len(story.failed) == len(trials):
        run.set_status("failed", exit_code=1, error=f"All {len(trials)} trials failed.")
        return run
    for trial_id in choose_candidates(run).trial_ids:
        trial = next(t for t in trials if t.trial_id == trial_id)
        predict(run, trial, "test", manifest.images(trial.key), story).save(run.trial(trial_id).predictions("test"))
    merge_predictions(run)
    if write_leaderboard(run).model is not None:
        run.model.parent.mkdir()
        run.model.write_bytes(b"weights")
    run.set_status("done", exit_code=4 if story.failed else 0, message="")
    return run


def write_pictures(root: Path, story: Story) -> Path:
    """Write small pictures of blobs, a hue a class; and a file that is no image."""
    for number, label in enumerate(story.classes):
        for split, count in zip(("train", "val", "test"), story.per_class, strict=True):
            folder = root / label if story.folds else root / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                _picture(number, index, split).save(folder / f"{split if story.folds else ''}{index:03}.png")
    if story.with_broken_file:
        ((root if story.folds else root / "train") / story.classes[0] / "broken.jpg").write_bytes(
            b"\xff\xd8\xff but no more"
        )
    return root


def _picture(number: int, index: int, split: str) -> Image.Image:
    generator = np.random.default_rng([number, index, len(split), ord(split[1])])
    hue = (number * 0.381966 + generator.normal(0, 0.03)) % 1
    petal = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.55, 0.9))
    width, height = (64, 48) if index % 3 else (48, 64)
    picture = Image.new("RGB", (width, height), tuple(int(c) for c in generator.integers(30, 110, 3)))
    draw = ImageDraw.Draw(picture)
    x, y = generator.uniform(0.4, 0.6, 2) * (width, height)
    num_petals = 4 + number % 5
    for petal_index in range(num_petals):
        angle = 2 * math.pi * petal_index / num_petals + index
        cx, cy, r = x + 13 * math.cos(angle), y + 13 * math.sin(angle), 8
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=petal)
    draw.ellipse((x - 7, y - 7, x + 7, y + 7), fill=(250, 214, 90))
    return picture


def predict(
    run: RunFolder, trial: TrialSpec, split: str, images: ImageTable, story: Story | None = None
) -> Predictions:
    """Return what a trial says of a split."""
    story = story or Story()
    rows = images.rows(split)
    labels, num_classes = images.labels[rows], len(images.classes)
    seed_of = [trial.seed, trial.candidate, len(trial.strategy), len(split), *([trial.fold] if trial.fold else [])]
    if trial.architecture != "resnet18":
        seed_of.append(len(trial.architecture))
    noise = np.random.default_rng(seed_of).normal(0, 1, (len(rows), num_classes))
    if trial.fold:
        hard = np.random.default_rng(0).uniform(0.2, 1.6, len(images))[rows]
    else:
        hard = np.random.default_rng(len(split)).uniform(0.2, 1.6, len(rows))
    skill = story.skill * SKILLS[trial.strategy] * (1.0, 1.15, 0.9)[trial.candidate % 3]
    logits = noise + (skill * hard)[:, None] * np.eye(num_classes)[labels]
    logits += 0.9 * np.eye(num_classes)[(labels + 1) % num_classes]  # each class looks like the next one
    if split == "test" and story.num_mislabelled:
        wrong = np.arange(story.num_mislabelled)
        logits[wrong, (labels[wrong] + 1) % num_classes] += 12.0
    return Predictions.from_arrays(
        run.run_id,
        trial.key,
        split,
        [images.image_ids[row] for row in rows],
        labels,
        (1.5 * logits).astype(np.float32),
        images.classes,
    )


def _write_trial(run: RunFolder, trial: TrialSpec, story: Story, images: ImageTable) -> None:
    folder = run.trial(trial.trial_id)
    folder.path.mkdir()
    folder.spec.write_text(trial.to_json() + "\n")
    reason = story.failed.get(trial.trial_id, "")
    num_epochs = 2 if reason or trial.trial_id in story.unfinished else story.epochs
    predictions = predict(run, trial, "val", images, story)
    found = compute_metrics(predictions.labels, predictions.logits)
    reached = {} if reason else {"val_accuracy": found.accuracy, "val_loss": found.log_loss}
    folder.metrics.write_text(_metrics_csv(trial, num_epochs, reached))
    if trial.trial_id in story.unfinished:
        return
    sign = -1 if story.metric in LOWER_IS_BETTER else 1
    result = TrialResult(
        trial.key,
        trial.lr,
        state="failed" if reason else "done",
        reason=reason,
        best_epoch=-1 if reason else num_epochs - 1,
        epochs=num_epochs,
        **reached,
        val_score=None if reason else sign * getattr(found, story.metric),
        seconds=SECONDS[trial.strategy] * (1 + 0.02 * trial.seed),
        images_per_s=2400 / SECONDS[trial.strategy],
        peak_memory_bytes=int(9e8 + 2e7 * SECONDS[trial.strategy]),
        trained_parameters=TRAINED[trial.strategy],
        total_parameters=TRAINED["full"],
        precision="bf16",
    )
    if not reason:
        predictions.save(folder.predictions("val"))
    folder.result.write_text(result.to_json() + "\n")


def _metrics_csv(trial: TrialSpec, num_epochs: int, reached: dict[str, float]) -> str:
    """Return a log of epochs that ends in what the trial reached."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    top = 1 - math.exp(-SKILLS[trial.strategy])
    for epoch in range(num_epochs):
        progress = 1 - math.exp(-(epoch + 1) * (0.4 + 0.1 * trial.candidate))
        wiggle = 0.015 * math.sin(7 * trial.seed + 3 * epoch + trial.candidate)
        record = EpochRecord(
            epoch=epoch,
            train_loss=1.6 * (1 - top * progress) + wiggle,
            val_loss=1.5 * (1 - 0.9 * top * progress),
            val_accuracy=min(1.0, 0.25 + 0.72 * top * progress + wiggle),
            lr=trial.lr,
            images=120,
            seconds=SECONDS[trial.strategy] / EPOCHS,
            train_seconds=0.8 * SECONDS[trial.strategy] / EPOCHS,
            data_wait_s=0.05,
            checkpoint_s=0.02,
            peak_memory_bytes=10**9,
            is_best=True,
        )
        writer.writerow(asdict(record) | (reached if epoch == num_epochs - 1 else {}))
    return text.getvalue()


def _trials(story: Story) -> tuple[TrialSpec, ...]:
    rates = RATES[: story.num_candidates]
    return tuple(
        TrialSpec(TrialKey(architecture, strategy, fold, seed, candidate), lr)
        for seed in story.seeds
        for fold in (range(1, story.folds + 1) if story.folds else (0,))
        for candidate, lr in enumerate(rates)
        for architecture in story.architectures
        for strategy in story.strategies
    )


def _spec(root: Path, story: Story) -> JobSpec:
    return JobSpec.from_mapping(
        {
            "verb": "compare" if len(story.strategies) * len(story.architectures) > 1 else "train",
            "data": {
                "path": str(root),
                "image_size": 32,
                "augmentation": story.augmentation,
                "near_duplicates": story.near_duplicates,
                "split": {"folds": story.folds},
            },
            "models": {"architectures": list(story.architectures), "weights": "none"},
            "strategies": {"names": list(story.strategies)},
            "training": {"epochs": story.epochs, "global_batch_size": 8},
            "comparison": {
                "metric": story.metric,
                "margin": story.margin,
                "seeds": list(story.seeds),
                "lr_candidates": list(RATES[: story.num_candidates]),
            },
        }
    )


def _plan(trials: Sequence[TrialSpec], story: Story) -> Plan:
    counts = [count * len(story.classes) for count in story.per_class]
    cost = Cost(**dict.fromkeys((f.name for f in fields(Cost)), 0))
    return Plan(
        trials=tuple(trials),
        workers_per_trial=1,
        use_gpu=False,
        gpus=0,
        cpus_per_worker=1.0,
        ray_cpus=2,
        threads_per_worker=1,
        concurrency=1,
        images=dict(zip(("train", "val", "test"), counts, strict=True)),
        num_classes=len(story.classes),
        epochs=story.epochs,
        cost=cost,
    )


def _environment() -> dict[str, object]:
    return json.loads(
        """{"bit_exact": true, "versions": {"transferlib": "0.1.0", "python": "3.11.7", "torch": "2.15.0"},
        "system": "Linux-6.1", "processor": "A processor <of two cores>", "threads_per_worker": 1,
        "workers_per_trial": 1, "use_gpu": false}"""
    )
