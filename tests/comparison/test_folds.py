"""A run over folds: figures are over all images; a third reading says what other training images would have done."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from tests.synthetic_run import Story, write_run
from transferlib.cli.outcome import result_lines
from transferlib.comparison.choose import read_choice
from transferlib.comparison.diff import compare_runs
from transferlib.comparison.leaderboard import load_comparison
from transferlib.comparison.ledger import fingerprint_test_set
from transferlib.comparison.results import read_final_results, split_images
from transferlib.comparison.statistics import ArmTable, judge
from transferlib.comparison.variance import Rows
from transferlib.comparison.verify import verify_run
from transferlib.data.manifest import Manifest
from transferlib.errors import DataError
from transferlib.evaluation.metrics import compute_metrics
from transferlib.records import TrialKey
from transferlib.report.content import report_content
from transferlib.report.html import render
from transferlib.report.result import describe_model
from transferlib.runs import RunFolder, read_json, write_json

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_reports")]

STORY = Story(
    strategies=("last_layers", "full"),
    seeds=(0, 1, 4),
    num_candidates=2,
    per_class=(6, 6, 7),
    folds=3,
    with_broken_file=False,
)
FAILED = tuple(f"resnet18-full-f2-s4-c{candidate}" for candidate in range(2))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("folds"), STORY)


@pytest.fixture(scope="module")
def board(run: RunFolder) -> dict:
    return read_json(run.leaderboard("json"))


def test_every_image_is_predicted_once_a_seed_by_a_model_that_did_not_train_on_it(run: RunFolder) -> None:
    table = pq.read_table(run.predictions).to_pandas()
    assert list(table.columns) == ["run", "arm", "seed", "fold", "candidate", "split", "image_id", "label", "logits"]
    manifest = Manifest.load(run.manifest)
    everything = sorted(manifest.images().image_ids)
    test = table[table.split == "test"]
    for _, of_seed in test.groupby(["arm", "seed"]):
        assert sorted(of_seed.image_id) == everything
    choice = read_choice(run)
    assert choice is not None
    assert len(choice.chosen) == 2 * 3 * 3
    for trial in choice.chosen:
        images = manifest.images(trial.key)
        rows = test[(test.arm == trial.arm) & (test.seed == trial.seed) & (test.fold == trial.fold)]
        trained = {images.image_ids[row] for split in ("train", "val") for row in images.rows(split)}
        assert not trained & set(rows.image_id)


def test_an_arms_figures_are_over_all_images_of_a_seed(run: RunFolder, board: dict) -> None:
    table = pq.read_table(run.predictions).to_pandas()
    for arm in board["arms"]:
        for seed in STORY.seeds:
            rows = table[(table.arm == arm["arm"]) & (table.seed == seed) & (table.split == "test")]
            assert len(rows) == 76
            metrics = compute_metrics(rows.label.to_numpy(), np.stack(rows.logits.to_list()).astype(np.float32))
            for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece"):
                assert arm[name]["by_seed"][str(seed)] == pytest.approx(getattr(metrics, name), abs=1e-12)


def test_the_third_reading_is_nadeau_and_bengios(run: RunFolder, board: dict) -> None:
    table = pq.read_table(run.predictions).to_pandas()
    test = table[table.split == "test"].assign(
        right=lambda t: [int(np.argmax(logits)) for logits in t.logits] == t.label
    )
    means = test.groupby(["arm", "seed", "fold"]).right.mean()
    (pair,) = board["pairs"]
    gaps = (means[pair["a"]] - means[pair["b"]]).to_numpy()
    manifest = Manifest.load(run.manifest)
    choice = read_choice(run)
    assert choice is not None
    trained = {(t.seed, t.fold): len(manifest.images(t.key).rows("train")) for t in choice.chosen}
    ratio = 3 * 76 / sum(trained.values())
    error = np.sqrt(gaps.var(ddof=1) * (1 / 9 + ratio))
    reading = pair["with_other_images"]
    middle, margin = gaps.mean(), stats.t.ppf(0.975, 8) * error
    assert (reading["low"], reading["high"]) == pytest.approx((middle - margin, middle + margin))
    assert reading["p_holm"] == pytest.approx(2 * stats.t.sf(abs(middle) / error, 8))


def test_the_verdict_the_model_and_the_table_speak_of_folds(run: RunFolder, board: dict) -> None:
    sentences = " ".join(board["verdict"]["sentences"])
    assert "With other training images of this kind (from 3 folds), resnet18-" in sentences
    assert board["model"]["fold"] in (1, 2, 3)
    assert f"seed {board['model']['seed']}, fold {board['model']['fold']}" in run.leaderboard("md").read_text()
    assert "76 test images, 3 seeds, 3 folds." in run.leaderboard("md").read_text()
    model = board["model"]
    table = pq.read_table(run.predictions).to_pandas()
    own = table[
        (table.arm == model["arm"])
        & (table.seed == model["seed"])
        & (table.fold == model["fold"])
        & (table.candidate == model["candidate"])
        & (table.split == "test")
    ]
    assert model["test"]["value"] == pytest.approx(np.mean([np.argmax(logits) for logits in own.logits] == own.label))


def copied(run: RunFolder, folder: Path) -> RunFolder:
    shutil.copytree(run.path, folder / run.run_id)
    return RunFolder(folder / run.run_id)


def test_verify_recomputes_it_all(run: RunFolder, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    assert not verify_run(copy).mismatches
    board = read_json(copy.leaderboard("json"))
    board["pairs"][0]["with_other_images"]["low"] += 1e-6
    write_json(copy.leaderboard("json"), board)
    (mismatch,) = verify_run(copy).mismatches
    assert "with_other_images.low" in str(mismatch)


def test_verify_finds_rows_that_were_moved_to_another_fold(run: RunFolder, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    table = pq.read_table(copy.predictions)
    folds = table["fold"].to_pylist()
    swapped = table.set_column(3, "fold", [[{1: 2, 2: 1}.get(fold, fold) for fold in folds]])
    with pq.ParquetWriter(copy.predictions, table.schema) as writer:
        sizes = pq.ParquetFile(run.predictions)
        start = 0
        for group in range(sizes.num_row_groups):
            number = sizes.metadata.row_group(group).num_rows
            writer.write_table(swapped.slice(start, number).cast(table.schema), row_group_size=number)
            start += number
    assert verify_run(copy).mismatches


def test_a_seed_without_one_of_its_folds_counts_for_nothing_and_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path, Story(**{**vars(STORY), "failed": dict.fromkeys(FAILED, "the loss is not finite")}))
    board = read_json(run.leaderboard("json"))
    by_seed = {arm["arm"]: list(arm["accuracy"]["by_seed"]) for arm in board["arms"]}
    assert by_seed == {"resnet18-last_layers": ["0", "1", "4"], "resnet18-full": ["0", "1"]}
    assert "resnet18-full is over 2 of 3 seeds only." in board["verdict"]["notes"]
    assert read_json(run.choice)["without_result"] == [{"arm": "resnet18-full", "seed": 4, "fold": 2}]
    assert not verify_run(run).mismatches


def test_a_stopped_run_is_judged_over_whole_seeds(tmp_path: Path) -> None:
    last = tuple(f"resnet18-{s}-f3-s4-c{c}" for s in ("last_layers", "full") for c in range(2))
    run = write_run(tmp_path, Story(**{**vars(STORY), "unfinished": last}))
    comparison = load_comparison(run)
    assert comparison.judgement is not None
    assert {arm.num_seeds for arm in comparison.judgement.arms} == {2}
    assert len(comparison.images.labels) == 76


def test_the_test_set_of_folds_is_all_images(run: RunFolder, tmp_path: Path) -> None:
    other = write_run(tmp_path, Story(**{**vars(STORY), "folds": 4, "seeds": (0,)}))
    assert fingerprint_test_set(Manifest.load(run.manifest)) == fingerprint_test_set(Manifest.load(other.manifest))


def tables(gaps: np.ndarray, generator: np.random.Generator) -> tuple[list[ArmTable], Rows]:
    """Return two arms of one seed whose folds differ by `gaps`."""
    values = [generator.integers(0, 2, (1, 40)).astype(float) for _ in range(2)]
    cells = {(0, fold): float(gap) for fold, gap in enumerate(gaps, 1)}
    return [ArmTable("a", values[0], cells), ArmTable("b", values[1], dict.fromkeys(cells, 0.0))], Rows.of(40)


def test_swapping_arms_negates_the_third_reading() -> None:
    both, rows = tables(np.array([0.1, 0.2, 0.15, 0.05]), np.random.default_rng(0))
    one, other = (
        judge(order, rows, np.zeros(40), test_per_train=0.5).pairs[0].with_other_images for order in (both, both[::-1])
    )
    assert one is not None
    assert other is not None
    assert (one.low, one.high, one.p) == (-other.high, -other.low, other.p)


def test_it_has_no_interval_of_width_zero_and_none_without_folds() -> None:
    both, rows = tables(np.full(5, 0.0), np.random.default_rng(0))
    reading = judge(both, rows, np.zeros(40), test_per_train=0.5).pairs[0].with_other_images
    assert reading is not None
    assert reading.low < 0 < reading.high
    plain = [ArmTable(table.arm, table.values) for table in both]
    assert judge(plain, rows, np.zeros(40)).pairs[0].with_other_images is None


def test_p_values_are_over_all_pairs() -> None:
    both, rows = tables(np.array([0.3, 0.31, 0.29, 0.3]), np.random.default_rng(1))
    third = ArmTable("c", both[1].values, {cell: 0.01 * cell[1] for cell in both[1].by_fold})
    pairs = judge([*both, third], rows, np.zeros(40), test_per_train=0.5).pairs
    readings = [pair.with_other_images for pair in pairs]
    assert all(reading is not None and reading.p_holm >= reading.p for reading in readings)


def test_leaderboards_of_one_cut_are_as_they_were(tmp_path: Path) -> None:
    board = json.loads(write_run(tmp_path).leaderboard("json").read_text())
    assert "fold" not in board["model"]
    assert all("with_other_images" not in pair for pair in board["pairs"])
    assert "fold" not in pq.read_schema(RunFolder(next((tmp_path / "runs").iterdir())).predictions).names


def test_two_runs_over_folds_are_compared_over_all_images_and_models_on_those_both_were_tested_on(
    run: RunFolder, tmp_path: Path
) -> None:
    other = write_run(tmp_path / "other", Story(**{**vars(STORY), "folds": 4}))
    found = compare_runs(run, other)
    assert (found.num_shared, found.num_only) == (76, (0, 0))
    boards = [read_json(one.leaderboard("json")) for one in (run, other)]
    for difference in found.arms:
        for side, board in zip((difference.a, difference.b), boards, strict=True):
            (arm,) = [arm for arm in board["arms"] if arm["arm"] == difference.what]
            assert side.mean == pytest.approx(arm["accuracy"]["mean"])
    tested = []
    for one, board in zip((run, other), boards, strict=True):
        model = board["model"]
        table = pq.read_table(one.predictions).to_pandas()
        is_models = (
            (table.arm == model["arm"])
            & (table.seed == model["seed"])
            & (table.fold == model["fold"])
            & (table.candidate == model["candidate"])
            & (table.split == "test")
        )
        rows = table[is_models]
        right = [int(np.argmax(logits)) == label for logits, label in zip(rows.logits, rows.label, strict=True)]
        tested.append(dict(zip(rows.image_id, right, strict=True)))
    both = tested[0].keys() & tested[1].keys()
    assert len(both) > 2
    assert found.models is not None
    assert found.models.a.mean == pytest.approx(np.mean([tested[0][image_id] for image_id in both]))
    assert found.models.b.mean == pytest.approx(np.mean([tested[1][image_id] for image_id in both]))
    assert found.models.what.endswith(f"fold {boards[0]['model']['fold']}")


def test_the_model_is_described_by_the_images_of_its_fold(run: RunFolder, board: dict) -> None:
    comparison = load_comparison(run)
    assert comparison.model is not None
    model = comparison.model
    images = Manifest.load(run.manifest).images(model.trial.key)
    number = len(images.rows("test"))
    assert number < 30
    assert model.images.image_ids == tuple(images.image_ids[row] for row in images.rows("test"))
    assert f"on test (the {number} images of its fold)" in run.leaderboard("md").read_text()
    described = describe_model(comparison)
    assert described is not None
    assert described["num_images"] == number


def test_figures_calibration_and_confusion_are_over_the_same_whole_seeds(tmp_path: Path) -> None:
    run = write_run(tmp_path, Story(**{**vars(STORY), "failed": dict.fromkeys(FAILED, "the loss is not finite")}))
    content = report_content(run, with_pictures=False)
    of_full = next(of for of in content["calibration"] if of.arm == "resnet18-full")
    assert list(of_full.by_seed) == [0, 1]
    (arm,) = [arm for arm in read_json(run.leaderboard("json"))["arms"] if arm["arm"] == "resnet18-full"]
    assert of_full.mean("ece") == pytest.approx(arm["ece"]["mean"])
    counts = {of["arm"]: sum(cell[2] for cell in of["counts"]) for of in content["confusions"]}
    assert counts == {"resnet18-full": 2 * 76, "resnet18-last_layers": 3 * 76}
    row = next(line for line in run.leaderboard("csv").read_text().splitlines() if line.startswith("resnet18-full,"))
    assert row.split(",")[3] == "2"


@pytest.mark.parametrize("first", [1, 2])
def test_a_run_without_one_whole_seed_has_a_report(tmp_path: Path, first: int) -> None:
    """A job that was stopped in the first seed ended as failed: the plot of costs had no arm."""
    ids = [
        f"resnet18-{s}-f{fold}-s{seed}-c{c}"
        for s in ("last_layers", "full")
        for seed in STORY.seeds
        for fold in (1, 2, 3)
        for c in range(2)
        if (seed, fold) > (0, first)
    ]
    run = write_run(tmp_path, Story(**{**vars(STORY), "unfinished": tuple(ids)}))
    content = report_content(run, with_pictures=False)
    assert content["comparison"].num_folds == 3
    assert content["comparison"].judgement is None
    render(content)


def test_models_tested_on_different_images_are_not_compared_but_arms_are(run: RunFolder, tmp_path: Path) -> None:
    other = write_run(tmp_path, Story(**{**vars(STORY), "folds": 18, "seeds": (0,), "per_class": (6, 6, 7)}))
    boards = [read_json(one.leaderboard("json"))["model"] for one in (run, other)]
    manifests = [Manifest.load(one.manifest) for one in (run, other)]
    tested = []
    for manifest, model in zip(manifests, boards, strict=True):
        images = manifest.images(TrialKey.of_arm(model["arm"], model["seed"], model["candidate"], model["fold"]))
        tested.append({images.image_ids[row] for row in images.rows("test")})
    if len(tested[0] & tested[1]) < 2:
        with pytest.raises(DataError, match=r"tested on images of different folds.*Compare arms: --arm resnet18-"):
            compare_runs(run, other)
    else:
        found = compare_runs(run, other)
        assert found.models is not None
        assert found.models.num_images == len(tested[0] & tested[1])
    by_arm = compare_runs(run, other, arm="resnet18-full")
    assert by_arm.first.num_images == 76
    assert not by_arm.notes


def test_chance_over_folds_is_the_largest_class_of_all_images(tmp_path: Path) -> None:
    """One fold's training images had fewer of the largest class than of another."""
    run = write_run(tmp_path, Story(**{**vars(STORY), "seeds": (0,)}))
    manifest = Manifest.load(run.manifest)
    images = manifest.images()
    labels = images.labels.copy()
    labels[np.flatnonzero(labels == 1)[:1]] = 0
    shares = split_images(manifest, replace(images, labels=labels), "test")
    assert int(shares.constant[0].argmax()) == 0
    assert shares.chance("accuracy").mean() == pytest.approx(20 / 76)


def test_operations_and_the_ratio_are_over_all_folds(run: RunFolder) -> None:
    choice = read_choice(run)
    assert choice is not None
    found = read_final_results(run, choice.trial_ids)
    manifest = Manifest.load(run.manifest)
    numbers = [len(manifest.images(trial.key).rows("train")) for trial in choice.chosen]
    assert [found.num_trained_on(trial.key) for trial in choice.chosen] == numbers
    assert found.test_per_train == pytest.approx(76 * 3 / (sum(numbers) / 2))


def test_without_a_whole_seed_the_verdict_says_so_though_there_is_a_model(tmp_path: Path) -> None:
    failed = [f"resnet18-{s}-f2-s0-c{c}" for s in ("last_layers", "full") for c in range(2)]
    story = Story(**{**vars(STORY), "seeds": (0,), "failed": dict.fromkeys(failed, "the loss is not finite")})
    board = read_json(write_run(tmp_path, story).leaderboard("json"))
    assert board["verdict"]["sentences"] == ["No seed has a result in all its folds."]
    assert board["model"]["images"] == board["images"]["test"] // 3 or board["model"]["images"] in (25, 26)


def test_the_terminal_says_what_the_model_was_tested_on(run: RunFolder, board: dict) -> None:
    lines = " ".join(" ".join(result_lines(run, 100)).split())
    assert f"on the {board['model']['images']} test images of its fold {board['model']['test']['value']:.3f}" in lines
