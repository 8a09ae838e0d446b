from __future__ import annotations

import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from tests.synthetic_run import Story, write_run
from transferlib.comparison.leaderboard import load_comparison, write_leaderboard
from transferlib.errors import DataError, RunFolderError
from transferlib.evaluation.predictions import Predictions, merge_predictions, read_predictions
from transferlib.runs import RunFolder

FAILED = {
    "resnet18-full-s1-c2": "not finite at epoch 2, step 1, rate 0.1",
    **{f"resnet18-scratch-s{seed}-c{candidate}": "no memory" for seed in (0, 1) for candidate in (0, 1, 2)},
}
STORY = Story(strategies=("feature_extraction", "last_layers", "full", "scratch"), seeds=(0, 1), failed=FAILED)
ARM_KEYS = [
    *("arm", "architecture", "strategy", "accuracy", "balanced_accuracy", "macro_f1", "top5", "log_loss", "ece", "val"),
    *("lr", "trained_parameters", "seconds", "images_per_s", "peak_memory_bytes", "trials"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("leaderboard"), STORY)


def test_json_has_the_contracts_schema(run: RunFolder) -> None:
    board = json.loads(run.leaderboard("json").read_text())
    assert list(board) == ["schema", "run", "ranked_by", "verdict", "arms"]
    assert board["schema"] == 1
    assert board["run"] == run.run_id
    for arm in board["arms"]:
        assert list(arm) == ARM_KEYS
        assert list(arm["accuracy"]) == list(arm["val"]["log_loss"]) == ["mean", "std", "by_seed"]
        assert list(arm["trials"]) == ["done", "failed"]
    assert [arm["arm"] for arm in board["arms"]][-1] == "resnet18-scratch"
    assert set(board["arms"][0]["lr"]) == {"0", "1"}


def test_figures_are_those_of_the_predictions_file(run: RunFolder) -> None:
    board = json.loads(run.leaderboard("json").read_text())
    for arm in board["arms"]:
        tested = [
            p for p in read_predictions(run.predictions) if p.source[1] == arm["arm"] and p.source.split == "test"
        ]
        accuracies = [accuracy_score(p.labels, p.logits.argmax(axis=1)) for p in tested]
        f1s = {str(p.source.seed): f1_score(p.labels, p.logits.argmax(axis=1), average="macro") for p in tested}
        if not tested:
            assert arm["accuracy"] == {"mean": None, "std": None, "by_seed": {}}
            continue
        assert arm["accuracy"]["mean"] == pytest.approx(statistics.fmean(accuracies))
        assert arm["accuracy"]["std"] == pytest.approx(np.std(accuracies, ddof=1))
        assert arm["macro_f1"]["by_seed"] == pytest.approx(f1s)


def test_order_is_by_validation_accuracy(run: RunFolder) -> None:
    arms = json.loads(run.leaderboard("json").read_text())["arms"]
    means = [arm["val"]["accuracy"]["mean"] for arm in arms if arm["val"]["accuracy"]["mean"] is not None]
    assert means == sorted(means, reverse=True)


def test_test_predictions_decide_nothing(run: RunFolder, tmp_path: Path) -> None:
    other = write_run(tmp_path, STORY)
    before = json.loads(other.leaderboard("json").read_text())
    for path in other.path.glob("trials/*/predictions-test.parquet"):
        old = Predictions.load(path)
        order = np.random.default_rng(len(path.parent.name)).permutation(len(old))
        replace(old, logits=old.logits[order]).save(path)
    merge_predictions(other)
    write_leaderboard(other)
    after = json.loads(other.leaderboard("json").read_text())
    assert [arm["accuracy"] for arm in after["arms"]] != [arm["accuracy"] for arm in before["arms"]]
    assert [arm["arm"] for arm in after["arms"]] == [arm["arm"] for arm in before["arms"]]
    for key in ("verdict", "ranked_by"):
        assert after[key] == before[key]
    for key in ("val", "lr"):
        assert [arm[key] for arm in after["arms"]] == [arm[key] for arm in before["arms"]]


def test_no_trial_is_lost_from_the_table(run: RunFolder) -> None:
    arms = {arm["arm"]: arm for arm in json.loads(run.leaderboard("json").read_text())["arms"]}
    assert arms["resnet18-scratch"]["trials"] == {"done": 0, "failed": 6}
    assert arms["resnet18-full"]["trials"] == {"done": 5, "failed": 1}
    assert sum(sum(arm["trials"].values()) for arm in arms.values()) == 24
    comparison = load_comparison(run)
    assert {trial.trial_id: trial.reason for trial in comparison.choice.failed} == FAILED
    assert "7 of 24 trials failed" in comparison.verdict.text


def test_csv_and_markdown_have_a_row_an_arm(run: RunFolder) -> None:
    rows = list(csv.DictReader(run.leaderboard("csv").read_text().splitlines()))
    board = json.loads(run.leaderboard("json").read_text())
    assert [row["arm"] for row in rows] == [arm["arm"] for arm in board["arms"]]
    assert float(rows[0]["test_macro_f1_mean"]) == board["arms"][0]["macro_f1"]["mean"]
    assert rows[-1]["val_accuracy_mean"] == ""
    text = run.leaderboard("md").read_text()
    assert text.startswith(board["verdict"])
    assert text.count("\n| resnet18-") == 4


def test_one_seed_has_no_spread_and_few_classes_no_top5(tmp_path: Path) -> None:
    run = write_run(tmp_path, Story(strategies=("full",), seeds=(7,), num_candidates=1))
    (arm,) = json.loads(run.leaderboard("json").read_text())["arms"]
    assert arm["accuracy"]["std"] is None
    assert list(arm["accuracy"]["by_seed"]) == ["7"]
    assert arm["top5"] is None


def test_many_classes_have_top5(tmp_path: Path) -> None:
    story = Story(strategies=("full",), seeds=(0,), num_candidates=1, classes=tuple("abcdefg"), per_class=(1, 1, 2))
    (arm,) = json.loads(write_run(tmp_path, story).leaderboard("json").read_text())["arms"]
    assert arm["accuracy"]["mean"] <= arm["top5"]["mean"] <= 1.0


def test_a_stopped_run_has_a_provisional_comparison_and_no_leaderboard(tmp_path: Path) -> None:
    run = write_run(tmp_path, replace(STORY, failed={}, unfinished=("resnet18-full-s1-c0",)))
    comparison = load_comparison(run)
    assert not comparison.is_final
    assert comparison.unfinished == ("resnet18-full-s1-c0",)
    assert all(not arm.test_metrics for arm in comparison.arms)
    with pytest.raises(RunFolderError, match="no leaderboard"):
        write_leaderboard(run)


def test_a_predictions_file_without_a_trial_or_an_image_gives_no_leaderboard(tmp_path: Path) -> None:
    run = write_run(tmp_path, Story(strategies=("full",), seeds=(0,), num_candidates=2))
    first, *_ = tables = list(read_predictions(run.predictions))
    tables[0].save(run.predictions)
    with pytest.raises(DataError, match="lacks 1 trials that are done"):
        write_leaderboard(run)
    short = replace(first, image_ids=first.image_ids[1:], labels=first.labels[1:], logits=first.logits[1:])
    short.save(run.predictions)
    with pytest.raises(DataError, match="1 missing"):
        write_leaderboard(run)
