"""The main job end to end: one real `submit compare`, then what its run folder promises, law by law."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from sklearn import metrics as sklearn_metrics
from torch import Tensor
from torchvision.transforms import functional

from tests.on_ray.jobs import ROOT, Job, make_run, num_epochs, process_ids, run_to_end, write_images
from transferlib.comparison.choose import Choice, choose_candidates, read_choice
from transferlib.data.manifest import COLUMNS, Manifest
from transferlib.evaluation.predictions import Predictions
from transferlib.planning.plan import Plan
from transferlib.records import TrialKey, TrialResult, TrialSpec
from transferlib.runs import RunFolder, read_json
from transferlib.spec import JobSpec

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ARMS = ["resnet18-feature_extraction", "resnet18-full"]
SEEDS = [0, 1]
CANDIDATES = [0, 1]
EPOCHS = 2
COUNTS = {"train": 16, "val": 6, "test": 6}
"""Images of each of the two classes before one photo of train is put into test as well."""
TRIAL_IDS = [f"{arm}-s{seed}-c{candidate}" for arm in ARMS for seed in SEEDS for candidate in CANDIDATES]


@dataclass(frozen=True)
class Finished:
    """Hold what one `submit compare` was given and what it left."""

    process: subprocess.CompletedProcess[str]
    folder: Path
    """The folder it was started in."""
    data: Path
    weights: Path
    run: RunFolder

    @property
    def plan(self) -> Plan:
        return Plan.from_json(self.run.plan.read_text())

    @property
    def choice(self) -> Choice:
        choice = read_choice(self.run)
        assert choice is not None
        return choice

    @property
    def chosen(self) -> list[str]:
        return list(self.choice.trial_ids)

    @property
    def leaderboard(self) -> dict[str, Any]:
        plain: dict[str, Any] = read_json(self.run.leaderboard("json"))
        return plain

    def manifest_rows(self) -> dict[str, dict[str, Any]]:
        return {row["image_id"]: row for row in pq.read_table(self.run.manifest).to_pylist()}

    def image_ids(self, split: str) -> set[str]:
        rows = self.manifest_rows().values()
        return {row["image_id"] for row in rows if row["status"] == "used" and row["split"] == split}

    def predictions(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.run.predictions).to_pylist()
        return rows

    def result(self, trial_id: str) -> TrialResult:
        result = self.run.trial(trial_id).read_result()
        assert result is not None
        return result


def submit(*arguments: str, folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a user does, who knows nothing of the tests' own Ray."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("submit")), *arguments],
        cwd=folder,
        env={**environment, "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def write_weights(path: Path, seed: int) -> Path:
    """Write random weights of a resnet18 with seven classes, as torchvision's scripts save them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), path)
    return path


def write_photos(folder: Path) -> Path:
    """Write two classes, and among them what real folders have: half a photo, a text, the same photo on two sides."""
    write_images(folder, COUNTS, side=48)
    whole = folder / "train/red/whole.jpg"
    Image.open(folder / "train/red/000.png").rotate(90).save(whole, quality=95)
    (folder / "train/red/half.jpg").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()
    (folder / "train/blue/notes.jpg").write_text("bought in May, sold in June\n")
    shutil.copy(folder / "train/blue/000.png", folder / "test/blue/copy.png")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder, home = tmp_path_factory.mktemp("job"), tmp_path_factory.mktemp("home")
    data, weights = write_photos(folder / "photos"), write_weights(folder / "source.pth", seed=3)
    options = {
        "--data": "photos",
        "--arch": "resnet18",
        "--seeds": len(SEEDS),
        "--lr-candidates": len(CANDIDATES),
        "--epochs": EPOCHS,
        "--image-size": 32,
        "--global-batch-size": 8,
        "--weights": "source.pth",
        "--precision": "fp32",
        "--gpus": 0,
        "--threads-per-worker": 1,
        "--runs": "results",
        "--cache-dir": "decoded",
    }
    arguments = [str(part) for option in options.items() for part in option]
    strategies = ["--strategy", "feature_extraction", "--strategy", "full"]
    process = submit("compare", *arguments, *strategies, folder=folder, home=home)
    runs = sorted((folder / "results").iterdir()) if (folder / "results").exists() else []
    assert len(runs) == 1, process.stderr
    return Finished(process, folder, data, weights, RunFolder(runs[0]))


# What is printed.


def test_compare_ends_with_0_and_says_so(finished: Finished) -> None:
    assert finished.process.returncode == 0, finished.process.stderr
    status = read_json(finished.run.status)
    assert (status["state"], status["exit_code"]) == ("done", 0)
    assert not finished.run.is_locked()


def test_stdout_has_the_result_table_the_verdict_and_the_files(finished: Finished) -> None:
    lines = finished.process.stdout.splitlines()
    top = next(number for number, line in enumerate(lines) if line.split()[:1] == ["arm"])
    assert all(name in lines[top] for name in ("val acc", "test acc", "95 % limits", "log-loss", "rate"))
    table = lines[top : lines.index("", top)]
    rows = [line for line in table if line.split()[:1] and line.split()[0] in ARMS]
    assert [row.split()[0] for row in rows] == [arm["arm"] for arm in finished.leaderboard["arms"]]
    for row, arm in zip(rows, finished.leaderboard["arms"], strict=True):
        figures = arm["accuracy"]
        assert row.split()[1:6] == [
            f"{arm['val']['accuracy']['mean']:.3f}",
            f"{figures['mean']:.3f}",
            *(f"{figures['low']:.3f}", "to", f"{figures['high']:.3f}"),
        ]
    text = " ".join(finished.process.stdout.split())
    for sentence in finished.leaderboard["verdict"]["sentences"]:
        assert sentence in text
    named = dict(line.split(maxsplit=1) for line in lines if line.startswith(("Report", "Model", "Predictions")))
    assert finished.folder / named["Report"] == finished.run.report
    assert finished.folder / named["Predictions"] == finished.run.predictions
    assert finished.folder / named["Model"] == finished.run.model


def test_the_model_handed_over_is_the_best_on_validation_over_all_arms_and_seeds(finished: Finished) -> None:
    model = finished.choice.model
    assert model is not None
    assert model.val == max(trial.val for trial in finished.choice.chosen)
    assert finished.run.model.read_bytes() == finished.run.trial(model.trial_id).best.read_bytes()
    said = finished.leaderboard["model"]
    assert (said["arm"], said["seed"], said["candidate"]) == (model.arm, model.seed, model.candidate)
    assert finished.run.path / said["path"] == finished.run.model
    test = recomputed(finished, "test", model.trial_id)["accuracy"]
    assert said["test"]["value"] == pytest.approx(test)
    assert said["test"]["low"] <= test <= said["test"]["high"]


def test_every_verb_names_the_same_model(finished: Finished) -> None:
    model = finished.choice.model
    assert model is not None
    runs, home = str(finished.run.path.parent), finished.folder / "home"
    for verb in ("status", "result", "list"):
        name = [] if verb == "list" else [finished.run.run_id]
        text = submit(verb, *name, "--runs", runs, folder=finished.folder, home=home).stdout
        words = f"{model.arm} s{model.seed}" if verb == "list" else f"{model.arm}, seed {model.seed}"
        assert words in text, verb
        answer = json.loads(submit(verb, *name, "--runs", runs, "--json", folder=finished.folder, home=home).stdout)
        if verb == "result":
            assert answer["model"] == str(finished.run.model)
        if verb == "list":
            assert (answer[0]["model"]["arm"], answer[0]["model"]["seed"]) == (model.arm, model.seed)


def test_stderr_has_the_talk_and_nothing_of_ray(finished: Finished) -> None:
    talk = finished.process.stderr
    for trial_id in TRIAL_IDS:
        for epoch in range(EPOCHS):
            assert len(re.findall(rf"^{trial_id} +epoch {epoch + 1}/{EPOCHS} ", talk, re.MULTILINE)) == 1
    for left_out in ("train/red/half.jpg", "train/blue/notes.jpg", "train/blue/000.png"):
        assert left_out in talk
    assert "warning: 2 of 59 files (3.4 %) cannot serve as images" in talk
    assert "Precision fp32" in talk
    for noise in ("Traceback", "(pid=", "ray::", "INFO worker.py", "Tip:", "\x1b["):
        assert noise not in talk + finished.process.stdout
    assert "epoch" not in finished.process.stdout


# What is written.


def test_spec_reads_back_to_what_was_asked_for(finished: Finished) -> None:
    asked = JobSpec.from_mapping(
        {
            "verb": "compare",
            "data": {
                "path": str(finished.data),
                "image_size": 32,
                "cache": {"dir": str(finished.folder / "decoded")},
            },
            "models": {"architectures": ["resnet18"], "weights": str(finished.weights)},
            "strategies": {"names": ["feature_extraction", "full"]},
            "training": {"epochs": EPOCHS, "global_batch_size": 8, "precision": "fp32"},
            "comparison": {"seeds": 2, "lr_candidates": 2},
            "resources": {"gpus": 0, "threads_per_worker": 1},
            "output": {"runs_dir": str(finished.folder / "results")},
        }
    )
    saved = JobSpec.load(finished.run.spec)
    decided = asked.comparison.model_copy(update={"metric": "accuracy"})
    assert saved == asked.model_copy(update={"comparison": decided})
    assert JobSpec.from_yaml(saved.to_yaml()) == saved


def test_environment_names_what_a_result_depends_on(finished: Finished) -> None:
    environment = read_json(finished.run.environment)
    assert environment["bit_exact"] is True
    for name in ("torch", "torchvision", "numpy", "ray"):
        assert environment["versions"][name] == version(name)
    assert environment["threads_per_worker"] == finished.plan.threads_per_worker
    assert environment["processor"]


def test_manifest_has_a_row_for_every_file_with_its_reason(finished: Finished) -> None:
    rows = finished.manifest_rows()
    table = pq.read_table(finished.run.manifest)
    assert table.schema.names == COLUMNS.names
    files = {path.relative_to(finished.data).as_posix() for path in finished.data.rglob("*") if path.is_file()}
    assert set(rows) == files
    assert table.num_rows == len(files)
    out = {image_id: row for image_id, row in rows.items() if row["status"] != "used"}
    assert {image_id: row["status"] for image_id, row in out.items()} == {
        "train/red/half.jpg": "skipped",
        "train/blue/notes.jpg": "skipped",
        "train/blue/000.png": "duplicate",  # the test set keeps the photo, so that it is not trained on
    }
    assert "truncated" in out["train/red/half.jpg"]["reason"]
    assert "no image" in out["train/blue/notes.jpg"]["reason"]
    assert "test/blue/copy.png" in out["train/blue/000.png"]["reason"]
    for row in rows.values():
        assert bool(row["reason"]) == (row["status"] != "used")
    assert {split: len(finished.image_ids(split)) for split in COUNTS} == {"train": 31, "val": 12, "test": 13}
    assert rows["test/blue/copy.png"]["sha256"] == rows["train/blue/000.png"]["sha256"]
    assert (rows["val/red/000.png"]["width"], rows["val/red/000.png"]["height"]) == (48, 48)


def test_every_trial_has_its_epochs_and_the_run_each_of_them_once(finished: Finished) -> None:
    assert sorted(path.name for path in (finished.run.path / "trials").iterdir()) == sorted(TRIAL_IDS)
    of_run = [json.loads(line) for line in finished.run.metrics.read_text().splitlines()]
    keys = Counter((row["trial_id"], row["epoch"]) for row in of_run)
    assert keys == Counter((trial_id, epoch) for trial_id in TRIAL_IDS for epoch in range(EPOCHS))
    by_key = {(row["trial_id"], row["epoch"]): row for row in of_run}
    for trial_id in TRIAL_IDS:
        rows = list(csv.DictReader(finished.run.trial(trial_id).metrics.read_text().splitlines()))
        assert [int(row["epoch"]) for row in rows] == list(range(EPOCHS))
        for row in rows:
            same = by_key[trial_id, int(row["epoch"])]
            for name in ("train_loss", "val_loss", "val_accuracy", "lr", "seconds"):
                assert float(row[name]) == same[name]
            assert int(row["images"]) == len(finished.image_ids("train"))


def test_only_chosen_trials_keep_a_model_and_none_a_checkpoint(finished: Finished) -> None:
    assert {path.parent.name for path in finished.run.path.glob("trials/*/best.safetensors")} == set(finished.chosen)
    assert len(finished.chosen) == len(ARMS) * len(SEEDS)
    assert not list(finished.run.path.rglob("last"))
    assert not list(finished.run.path.rglob("*.tmp"))
    assert not finished.run.stop_flag.exists()


def test_leaderboard_says_the_same_in_three_forms(finished: Finished) -> None:
    arms = finished.leaderboard["arms"]
    rows = list(csv.DictReader(finished.run.leaderboard("csv").read_text().splitlines()))
    assert [row["arm"] for row in rows] == [arm["arm"] for arm in arms]
    for row, arm in zip(rows, arms, strict=True):
        assert float(row["test_accuracy_mean"]) == arm["accuracy"]["mean"]
        assert float(row["val_log_loss_seed_std"]) == arm["val"]["log_loss"]["seed_std"]
    markdown = finished.run.leaderboard("md").read_text()
    assert all(sentence in markdown for sentence in finished.leaderboard["verdict"]["sentences"])
    assert all(f"| {arm} |" in markdown for arm in ARMS)


def test_report_is_one_file_without_an_address(finished: Finished) -> None:
    report = finished.run.report.read_text()
    assert not re.search(r"https?:|//[a-z0-9-]+\.", report)
    assert not re.search(r"<script(?! type=\"application/json\")|<link|<iframe|url\((?!#|\"?data:)", report)
    assert all(source.startswith("data:") for source in re.findall(r'<img[^>]* src="([^"]*)"', report))
    for anchor in ("result", "compared", "curves", "rates", "confusion", "mistakes", "cost", "left-out"):
        assert f'<section id="{anchor}">' in report
    assert "<svg" in report
    assert "train/red/half.jpg" in report


def test_mosaic_shows_training_images_after_augmentation(finished: Finished) -> None:
    with Image.open(finished.run.mosaic) as mosaic:
        assert mosaic.format == "PNG"
        assert min(mosaic.size) >= 32
        assert len(mosaic.convert("RGB").getcolors(1 << 20) or [None] * 1000) > 100


def test_log_folder_has_a_log_of_the_job_and_of_each_trial(finished: Finished) -> None:
    logs = {path.name for path in finished.run.log.iterdir()}
    assert {"job.log", "messages.txt", *(f"{trial_id}.log" for trial_id in TRIAL_IDS)} <= logs


# Law 2: every image once.


def test_one_worker_trials_follow_one_another_in_one_process(finished: Finished) -> None:
    processes = {pid for trial in finished.plan.trials for pid in process_ids(finished.run, trial.trial_id)}
    assert len(processes) == 1


def test_predictions_are_every_image_once_for_each_candidate_and_test_for_the_chosen(finished: Finished) -> None:
    found: dict[tuple[str, str], Counter[str]] = {}
    rows = finished.predictions()
    for row in rows:
        trial_id = f"{row['arm']}-s{row['seed']}-c{row['candidate']}"
        found.setdefault((trial_id, row["split"]), Counter())[row["image_id"]] += 1
    expected = {(trial_id, "val"): Counter(finished.image_ids("val")) for trial_id in TRIAL_IDS}
    expected |= {(trial_id, "test"): Counter(finished.image_ids("test")) for trial_id in finished.chosen}
    assert found == expected
    classes = json.loads(pq.read_schema(finished.run.predictions).metadata[b"classes"])
    assert classes == ["blue", "red"]
    manifest = finished.manifest_rows()
    for row in rows:
        assert row["run"] == finished.run.run_id
        assert classes[row["label"]] == manifest[row["image_id"]]["label"]
        assert len(row["logits"]) == len(classes)


# Law 3: frozen is frozen.


def backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}


def test_feature_extraction_leaves_every_backbone_tensor_bit_identical(finished: Finished) -> None:
    source = backbone(torch.load(finished.weights, weights_only=True))
    chosen = [trial_id for trial_id in finished.chosen if trial_id.startswith("resnet18-feature_extraction")]
    assert len(chosen) == len(SEEDS)
    for trial_id in chosen:
        kept = backbone(load_file(finished.run.trial(trial_id).best))
        assert kept.keys() == source.keys()
        different = [key for key in source if as_bytes(kept[key]) != as_bytes(source[key])]
        assert different == []


def test_full_moves_every_stage_of_the_same_source(finished: Finished) -> None:
    source = torch.load(finished.weights, weights_only=True)
    chosen = [trial_id for trial_id in finished.chosen if trial_id.startswith("resnet18-full")]
    assert len(chosen) == len(SEEDS)
    for trial_id in chosen:
        moved = load_file(finished.run.trial(trial_id).best)
        for key in ("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer4.1.conv2.weight"):
            assert not torch.equal(moved[key], source[key])


def as_bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


# Law 4: the test set is read once, after the choice.


def test_choice_is_older_than_everything_read_of_the_test_set(finished: Finished) -> None:
    chosen_at = finished.run.choice.stat().st_mtime_ns
    read = {path.parent.name: path.stat().st_mtime_ns for path in finished.run.path.glob("trials/*/*-test.parquet")}
    assert read.keys() == set(finished.chosen)
    assert all(chosen_at < read_at for read_at in read.values())
    assert all(finished.run.trial(trial_id).result.stat().st_mtime_ns < chosen_at for trial_id in TRIAL_IDS)


def test_choosing_again_gives_the_same_and_writes_nothing(finished: Finished) -> None:
    before, written_at = finished.choice, finished.run.choice.stat().st_mtime_ns
    assert choose_candidates(finished.run) == before
    assert finished.run.choice.stat().st_mtime_ns == written_at


def test_choice_and_order_are_the_best_of_validation_predictions(finished: Finished) -> None:
    figures = {
        trial_id: recomputed(finished, "val", trial_id)["accuracy"] * 1e6
        - recomputed(finished, "val", trial_id)["log_loss"]
        for trial_id in TRIAL_IDS
    }
    for trial in finished.choice.chosen:
        rivals = [f"{trial.arm}-s{trial.seed}-c{candidate}" for candidate in CANDIDATES]
        assert trial.trial_id == max(rivals, key=figures.__getitem__)
    means = {arm: statistics.fmean(figures[f.trial_id] for f in finished.choice.chosen if f.arm == arm) for arm in ARMS}
    assert [arm["arm"] for arm in finished.leaderboard["arms"]] == sorted(ARMS, key=means.__getitem__, reverse=True)


# Law 5: equal chances.


def test_each_arm_has_the_same_seeds_candidates_and_epochs(finished: Finished) -> None:
    trials = finished.plan.trials
    assert [trial.trial_id for trial in sorted(trials, key=lambda t: TRIAL_IDS.index(t.trial_id))] == TRIAL_IDS
    budgets = {arm: sorted((t.seed, t.candidate) for t in trials if t.arm == arm) for arm in ARMS}
    assert budgets[ARMS[0]] == budgets[ARMS[1]]
    assert {finished.result(trial_id).epochs for trial_id in TRIAL_IDS} == {EPOCHS}
    for arm in ARMS:
        low, high = sorted({trial.lr for trial in trials if trial.arm == arm})
        assert high / low == pytest.approx(10**0.5)
        for seed in SEEDS:
            assert sorted(trial.lr for trial in trials if (trial.arm, trial.seed) == (arm, seed)) == [low, high]


def test_report_says_that_chances_were_equal_and_marks_rates_at_the_edge(finished: Finished) -> None:
    text = " ".join(finished.run.report.read_text().split())
    assert (
        "Each arm had the same chances: two learning rates for each of two seeds, at most two epochs each; "
        "the same split, the same images in the same order, and the same augmentation." in text
    )
    rates = text.split('<section id="rates">')[1].split("</section>")[0]
    for edge in ("lowest", "highest"):
        marked = rates.count(f'<span class="badge warn">{edge}</span>')
        assert marked == sum(trial.edge == edge for trial in finished.choice.chosen)
    assert all(trial.edge in ("lowest", "highest") for trial in finished.choice.chosen)
    for trial in finished.choice.chosen:
        assert f"{trial.lr:.3g}" in rates


# The figures.


def labels_and_logits(
    rows: Iterable[dict[str, Any]], split: str, trial_id: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    of_trial = [
        row for row in rows if row["split"] == split and f"{row['arm']}-s{row['seed']}-c{row['candidate']}" == trial_id
    ]
    return np.array([row["label"] for row in of_trial]), np.array([row["logits"] for row in of_trial], np.float64)


def recomputed(finished: Finished, split: str, trial_id: str) -> dict[str, float]:
    """Compute one trial's metrics from `predictions.parquet` with scikit-learn; the ECE by hand, as Guo et al. say."""
    labels, logits = labels_and_logits(finished.predictions(), split, trial_id)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted, confidence = logits.argmax(axis=1), probabilities.max(axis=1)
    ece = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            gap = abs((predicted == labels)[inside].mean() - confidence[inside].mean())
            ece += inside.sum() / len(labels) * gap
    return {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, predicted),
        "macro_f1": sklearn_metrics.f1_score(labels, predicted, average="macro", zero_division=0),
        "log_loss": sklearn_metrics.log_loss(labels, probabilities, labels=[0, 1]),
        "ece": ece,
    }


def test_leaderboard_is_what_scikit_learn_makes_of_the_predictions(finished: Finished) -> None:
    assert finished.leaderboard["schema"] == 2
    assert finished.leaderboard["run"] == finished.run.run_id
    for arm in finished.leaderboard["arms"]:
        chosen = {trial.seed: trial for trial in finished.choice.chosen if trial.arm == arm["arm"]}
        assert {int(seed): rate for seed, rate in arm["lr"].items()} == {s: t.lr for s, t in chosen.items()}
        for split, shown in (("test", arm), ("val", arm["val"])):
            figures = {seed: recomputed(finished, split, trial.trial_id) for seed, trial in chosen.items()}
            for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece"):
                values = {seed: figures[seed][name] for seed in SEEDS}
                by_seed = {int(seed): value for seed, value in shown[name]["by_seed"].items()}
                assert by_seed == pytest.approx(values, abs=1e-6)
                assert shown[name]["mean"] == pytest.approx(statistics.fmean(values.values()), abs=1e-6)
                if name != "ece":
                    assert shown[name]["low"] - 1e-9 <= shown[name]["mean"] <= shown[name]["high"] + 1e-9
                    assert 0 <= shown[name]["seed_std"] <= statistics.stdev(values.values()) + 1e-6
            assert shown["top5"] is None  # two classes
        results = [finished.result(trial.trial_id) for trial in chosen.values()]
        assert arm["seconds"] == pytest.approx(statistics.fmean(result.seconds for result in results))
        assert arm["peak_memory_bytes"] == max(result.peak_memory_bytes for result in results)
        assert arm["trials"] == {"done": len(SEEDS) * len(CANDIDATES), "failed": 0}
    trained = {arm["arm"]: arm["trained_parameters"] for arm in finished.leaderboard["arms"]}
    whole = sum(parameter.numel() for parameter in torchvision.models.resnet18(num_classes=2).parameters())
    assert trained == {"resnet18-feature_extraction": 2 * 512 + 2, "resnet18-full": whole}


# The model.


def readme_lines() -> str:
    blocks: list[str] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (lines,) = [block for block in blocks if "model.safetensors" in block]
    return lines


def evaluation_pixels(image: Path, meta: dict[str, str]) -> Tensor:
    """Prepare a photo as the README says: resize the short side, cut the centre, divide by 255, normalise."""
    with Image.open(image) as opened:
        resized = functional.resize(opened.convert("RGB"), [int(meta["resize"])])
    cropped = functional.pil_to_tensor(functional.center_crop(resized, [int(meta["image_size"])])).float() / 255
    pixels: Tensor = functional.normalize(cropped, json.loads(meta["mean"]), json.loads(meta["std"]))
    return pixels


def test_readme_lines_load_each_chosen_model_and_give_the_logits_of_its_predictions(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    predictions = finished.predictions()
    for trial_id in finished.chosen:
        (tmp_path / trial_id).mkdir()
        (tmp_path / trial_id / "model.safetensors").symlink_to(finished.run.trial(trial_id).best)
        monkeypatch.chdir(tmp_path / trial_id)
        names: dict[str, Any] = {}
        exec(readme_lines(), names)
        meta, model = names["meta"], names["model"].eval()
        assert names["classes"] == ["blue", "red"]
        assert (meta["architecture"], meta["image_size"], meta["resize"]) == ("resnet18", "32", "37")
        image_ids = sorted(finished.image_ids("test"))
        with torch.inference_mode():
            logits = model(torch.stack([evaluation_pixels(finished.data / name, meta) for name in image_ids]))
        saved = {
            row["image_id"]: row["logits"]
            for row in predictions
            if row["split"] == "test" and trial_id == f"{row['arm']}-s{row['seed']}-c{row['candidate']}"
        }
        torch.testing.assert_close(logits, torch.tensor([saved[name] for name in image_ids]), rtol=1e-3, atol=1e-4)


# What is refused.


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", {"train": 16, "val": 4, "test": 4})


def as_it_stands(trials: Iterable[TrialSpec], run: RunFolder) -> dict[str, bytes]:
    """Return the files of a run's trials, by path."""
    folders = [run.trial(trial.trial_id).path for trial in trials]
    return {
        path.relative_to(run.path).as_posix(): path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_weights_that_changed_since_the_stop_are_not_gone_on_with(tmp_path: Path, small_data: Path) -> None:
    weights = write_weights(tmp_path / "source.pth", seed=3)
    run = make_run(
        tmp_path / "runs",
        small_data,
        tmp_path / "cache",
        models={"weights": str(weights)},
        training={"epochs": 200},
    )
    plan = Plan.from_json(run.plan.read_text())
    (trial,) = plan.trials
    with Job(run, tmp_path) as job:
        job.wait_until(lambda: num_epochs(run, trial.trial_id) >= 1)
        job.process.send_signal(signal.SIGTERM)
        assert job.wait() == 5, job.tail()
    before = as_it_stands(plan.trials, run)
    assert any(name.endswith(".safetensors") for name in before)

    write_weights(weights, seed=4)
    resumed = submit("compare", "--resume", str(run.path), folder=tmp_path, home=tmp_path)

    assert resumed.returncode == 2, resumed.stderr
    status = read_json(run.status)
    assert (status["state"], status["exit_code"]) == ("failed", 2)
    assert "the source weights changed since it began" in status["error"]
    assert status["error"] in resumed.stderr
    assert "Traceback" not in resumed.stderr
    assert as_it_stands(plan.trials, run) == before


def test_weights_that_do_not_fit_one_of_two_networks_end_the_job_before_any_trial(
    tmp_path: Path, small_data: Path
) -> None:
    weights = write_weights(tmp_path / "source.pth", seed=3)
    run = make_run(
        tmp_path / "runs",
        small_data,
        tmp_path / "cache",
        models={"architectures": ["resnet18", "resnet34"], "weights": str(weights)},
    )
    assert run_to_end(run, tmp_path) == 2
    status = read_json(run.status)
    assert (status["state"], status["exit_code"]) == ("failed", 2)
    assert f"{weights} does not match resnet34. These are weights of a resnet18" in status["error"]
    assert list((run.path / "trials").iterdir()) == []
    assert not run.metrics.exists()


def test_a_job_over_folds_tests_every_image_once_and_verifies(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images", {"train": 12})
    run = make_run(
        tmp_path / "runs",
        data,
        tmp_path / "cache",
        folds=3,
        training={"epochs": 1},
        comparison={"metric": "accuracy"},
    )
    assert run_to_end(run, tmp_path) == 0
    manifest = Manifest.load(run.manifest)
    tested: list[str] = []
    for fold in (1, 2, 3):
        trial_id = f"resnet18-full-f{fold}-s0-c0"
        images = manifest.images(TrialKey.parse(trial_id))
        predictions = Predictions.load(run.trial(trial_id).predictions("test"))
        assert predictions.image_ids == tuple(images.image_ids[row] for row in images.rows("test"))
        result = run.trial(trial_id).read_result()
        assert result is not None
        assert result.epochs == 1
        tested += predictions.image_ids
    assert sorted(tested) == sorted(manifest.images().image_ids)
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert {(row["trial_id"], row["fold"], row["images"]) for row in rows} == {
        (f"resnet18-full-f{fold}-s0-c0", fold, 8) for fold in (1, 2, 3)
    }
    verified = submit("verify", str(run.path), folder=tmp_path, home=tmp_path)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_finished_trial_whose_model_was_damaged_is_trained_again_first(tmp_path: Path, small_data: Path) -> None:
    """One bit flipped in a finished model was delivered, with the test figures of the damaged weights."""
    run = make_run(tmp_path / "runs", small_data, tmp_path / "cache", training={"epochs": 1})
    assert run_to_end(run, tmp_path) == 0
    (trial,) = Plan.from_json(run.plan.read_text()).trials
    folder = run.trial(trial.trial_id)
    before, board = folder.read_result(), read_json(run.leaderboard("json"))
    assert before is not None
    assert set(before.files) == {"best.safetensors", "predictions-val.parquet"}
    data = bytearray(folder.best.read_bytes())
    data[-1000] ^= 4
    folder.best.write_bytes(data)  # the model handed over is the same file under another name
    assert [path.name for path in folder.damaged_files()] == ["best.safetensors"]

    run.set_status("stopped", exit_code=5)
    run.leaderboard("json").unlink()
    assert run_to_end(run, tmp_path) == 0
    after = folder.read_result()
    assert after is not None
    assert after.weights_sha256 == before.weights_sha256
    assert after.files["predictions-val.parquet"] == before.files["predictions-val.parquet"]
    assert not folder.damaged_files()
    assert run.model.read_bytes() == folder.best.read_bytes()
    assert read_json(run.leaderboard("json"))["model"] == board["model"]
    assert (
        f"Trial {trial.trial_id} is trained again: best.safetensors is not what it wrote"
        in (run.log / "messages.txt").read_text()
    )
