from __future__ import annotations

import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, f1_score

from tests.synthetic_run import Story, write_run
from transferlib.comparison.leaderboard import load_comparison, write_leaderboard
from transferlib.data.manifest import Manifest
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
    *("lr", "trained_parameters", "train_flops", "seconds", "images_per_s", "peak_memory_bytes", "trials"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("leaderboard"), STORY)


def test_json_has_the_contracts_schema(run: RunFolder) -> None:
    board = json.loads(run.leaderboard("json").read_text())
    assert list(board) == [
        *("schema", "run", "metric", "ranked_by", "verdict", "model", "chance", "images", "pairs", "arms"),
    ]
    assert board["schema"] == 2
    assert list(board["verdict"]) == ["state", "sentences", "notes", "margin", "cheapest_good_enough"]
    assert list(board["model"]) == ["path", "arm", "seed", "candidate", "val", "test"]
    assert list(board["chance"]) == ["value", "low", "high"]
    assert len(board["pairs"]) == 3  # of the three arms that have a result
    for pair in board["pairs"]:
        assert list(pair) == ["a", "b", "difference", "discordant_images", "these_models", "if_trained_again"]
        assert list(pair["these_models"]) == ["low", "high", "p_holm"]
        assert pair["if_trained_again"] is None  # two seeds
    assert board["run"] == run.run_id
    for arm in board["arms"]:
        assert list(arm) == ARM_KEYS
        if arm["accuracy"] is not None:
            assert list(arm["accuracy"]) == list(arm["val"]["log_loss"])
            assert list(arm["accuracy"]) == ["mean", "low", "high", "seed_std", "by_seed"]
        assert list(arm["trials"]) == ["done", "failed"]
    assert [arm["arm"] for arm in board["arms"]][-1] == "resnet18-scratch"
    assert set(board["arms"][0]["lr"]) == {"0", "1"}


def test_figures_are_those_of_the_predictions_file(run: RunFolder) -> None:
    board = json.loads(run.leaderboard("json").read_text())
    for arm in board["arms"]:
        tested = [
            p for p in read_predictions(run.predictions) if p.source.key.arm == arm["arm"] and p.source.split == "test"
        ]
        accuracies = [accuracy_score(p.labels, p.logits.argmax(axis=1)) for p in tested]
        f1s = {str(p.source.key.seed): f1_score(p.labels, p.logits.argmax(axis=1), average="macro") for p in tested}
        if not tested:
            assert arm["accuracy"] is None
            continue
        assert arm["accuracy"]["mean"] == pytest.approx(statistics.fmean(accuracies))
        assert arm["accuracy"]["low"] < arm["accuracy"]["mean"] < arm["accuracy"]["high"]
        # The images' share is taken out of the spread over seeds, so it is never the larger one.
        assert 0 <= arm["accuracy"]["seed_std"] <= np.std(accuracies, ddof=1) + 1e-12
        assert arm["macro_f1"]["by_seed"] == pytest.approx(f1s)


def test_order_is_by_validation_accuracy(run: RunFolder) -> None:
    arms = json.loads(run.leaderboard("json").read_text())["arms"]
    means = [arm["val"]["accuracy"]["mean"] for arm in arms if arm["val"]["accuracy"] is not None]
    assert means == sorted(means, reverse=True)


def test_test_predictions_choose_nothing(run: RunFolder, tmp_path: Path) -> None:
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
    assert after["ranked_by"] == before["ranked_by"]
    for key in ("path", "arm", "seed", "candidate", "val"):
        assert after["model"][key] == before["model"][key]
    assert after["model"]["test"] != before["model"]["test"]
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
    assert text.startswith(board["verdict"]["sentences"][0])
    assert "Model: resnet18-" in text
    assert "Chance (always" in text
    assert "48 test images, 2 seeds." in text
    assert ("*" in text) == ("* at the edge of the rates tried" in text)
    assert text.count("\n| resnet18-") == 4


def test_one_seed_has_no_spread_and_few_classes_no_top5(tmp_path: Path) -> None:
    run = write_run(tmp_path, Story(strategies=("full",), seeds=(7,), num_candidates=1))
    (arm,) = json.loads(run.leaderboard("json").read_text())["arms"]
    assert arm["accuracy"]["seed_std"] is None
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
    assert all(arm.figure("test", "accuracy") is None for arm in comparison.arms)
    assert "Not the end: 1 of 24 trials have not ended" in comparison.verdict.text
    assert comparison.model is not None
    assert comparison.model.test is None
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


def test_the_model_is_the_best_on_validation_over_all_arms_and_seeds(run: RunFolder) -> None:
    comparison = load_comparison(run)
    assert comparison.model is not None
    best = max(trial.val for trial in comparison.choice.chosen)
    assert comparison.model.trial.val == best
    level = [trial for trial in comparison.choice.chosen if trial.val == best]
    assert comparison.model.trial.val_log_loss == min(trial.val_log_loss for trial in level)


def test_the_model_depends_on_no_seconds(tmp_path: Path) -> None:
    run = write_run(tmp_path, STORY)
    before = json.loads(run.leaderboard("json").read_text())
    for path in run.path.glob("trials/*/result.json"):
        result = json.loads(path.read_text())
        path.write_text(json.dumps({**result, "seconds": 1000 / (1 + len(path.parent.name)), "images_per_s": 1.0}))
    write_leaderboard(run)
    after = json.loads(run.leaderboard("json").read_text())
    assert [arm["seconds"] for arm in after["arms"]] != [arm["seconds"] for arm in before["arms"]]
    for key in ("model", "verdict", "pairs", "chance"):
        assert after[key] == before[key]


def test_cost_is_counted_in_operations_frozen_work_forward_only(run: RunFolder) -> None:
    flops = {arm.strategy: arm.train_flops for arm in load_comparison(run).arms if arm.chosen}
    assert flops["feature_extraction"] < flops["last_layers"] < flops["full"]
    assert 2.5 < flops["full"] / flops["feature_extraction"] < 3.1


def test_images_of_one_group_count_as_one_observation(tmp_path: Path) -> None:
    run = write_run(tmp_path, Story(seeds=(0, 1, 2)))
    alone = load_comparison(run).judgement
    manifest = Manifest.load(run.manifest)
    groups = [str(number // 2) for number in range(manifest.table.num_rows)]
    column = manifest.table.schema.get_field_index("group")
    grouped = manifest.table.set_column(column, "group", pa.array(groups, pa.string()))
    replace(manifest, table=grouped).save(run.manifest)
    together = load_comparison(run).judgement
    assert alone is not None
    assert together is not None
    assert together.pairs[0].difference == alone.pairs[0].difference
    assert together.pairs[0].these_models.df < alone.pairs[0].these_models.df


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "log_loss"])
def test_a_metric_chooses_ranks_and_is_tested(tmp_path: Path, metric: str) -> None:
    run = write_run(tmp_path, Story(seeds=(0, 1, 2), metric=metric))
    comparison = load_comparison(run)
    board = json.loads(run.leaderboard("json").read_text())
    assert board["metric"] == metric
    means = [arm["val"][metric]["mean"] for arm in board["arms"]]
    assert means == sorted(means, reverse=metric != "log_loss")
    of_arms = [trial.val for trial in comparison.choice.chosen]
    best = min(of_arms) if metric == "log_loss" else max(of_arms)
    assert board["model"]["val"] == best
    pair = board["pairs"][0]
    by_arm = {arm["arm"]: arm[metric]["mean"] for arm in board["arms"]}
    assert pair["difference"] == pytest.approx(by_arm[pair["a"]] - by_arm[pair["b"]])
    assert board["chance"]["value"] == pytest.approx(
        {"accuracy": 0.25, "balanced_accuracy": 0.25, "macro_f1": 0.1, "log_loss": np.log(4)}[metric]
    )
