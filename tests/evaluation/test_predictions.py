from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.synthetic_run import Story, predict, write_run
from transferlib.data.images import ImageTable, image_keys
from transferlib.data.manifest import Manifest
from transferlib.errors import DataError, RunFolderError, TrialError
from transferlib.evaluation.predictions import Predictions, merge_predictions, read_predictions
from transferlib.records import TrialKey, TrialSpec
from transferlib.runs import RunFolder

IDS = ("a/1.png", "a/2.png", "b/1.png", "b/2.png")
SMALL = Story(
    strategies=("last_layers", "full"), seeds=(0, 1), num_candidates=2, classes=("a", "b"), per_class=(1, 3, 4)
)


@pytest.fixture
def images() -> ImageTable:
    splits = np.array([1, 2, 1, 1], np.int8)
    labels = np.array([0, 0, 1, 1])
    return ImageTable(IDS, IDS, IDS, labels, splits, image_keys(IDS), ("a", "b"))


KEY = TrialKey("resnet18", "full", fold=0, seed=3, candidate=1)


def make(image_ids: tuple[str, ...] = (IDS[0], IDS[2], IDS[3]), labels: tuple[int, ...] = (0, 1, 1)) -> Predictions:
    logits = np.arange(2 * len(image_ids), dtype=np.float32).reshape(-1, 2) / 7
    return Predictions.from_arrays("run", KEY, "val", image_ids, labels, logits, ("a", "b"))


def test_file_has_the_contracts_columns_and_classes_in_its_metadata(tmp_path: Path) -> None:
    make().save(tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["run", "arm", "seed", "candidate", "split", "image_id", "label", "logits"]
    assert table.schema.field("label").type == pa.int64()
    assert table.schema.field("logits").type == pa.list_(pa.float32())
    assert json.loads(table.schema.metadata[b"classes"]) == ["a", "b"]


def test_saved_predictions_read_back_bit_for_bit(tmp_path: Path) -> None:
    made = make()
    made.save(tmp_path / "p.parquet")
    read = Predictions.load(tmp_path / "p.parquet")
    assert (read.source, read.image_ids, read.classes) == (made.source, made.image_ids, made.classes)
    assert read.logits.tobytes() == made.logits.tobytes()
    assert read.labels.tolist() == made.labels.tolist()


def test_complete_predictions_pass_in_any_order(images: ImageTable) -> None:
    shuffled = make((IDS[3], IDS[0], IDS[2]), (1, 0, 1))
    shuffled.check_complete(images, "val")
    assert shuffled.in_order_of(images).image_ids == (IDS[0], IDS[2], IDS[3])
    assert shuffled.in_order_of(images).logits[0].tolist() == shuffled.logits[1].tolist()


@pytest.mark.parametrize(
    ("image_ids", "labels", "fault"),
    [
        ((IDS[0], IDS[2]), (0, 1), "1 missing: b/2.png"),
        ((IDS[0], IDS[2], IDS[3], IDS[3]), (0, 1, 1, 1), "1 twice there: b/2.png"),
        ((*IDS,), (0, 0, 1, 1), "1 not of this split: a/2.png"),
        ((IDS[0], IDS[2], IDS[3]), (0, 0, 1), "1 with another label: b/1.png"),
    ],
)
def test_a_table_that_is_not_the_manifests_images_is_an_error(
    images: ImageTable, image_ids: tuple[str, ...], labels: tuple[int, ...], fault: str
) -> None:
    with pytest.raises(DataError, match=fault):
        make(image_ids, labels).check_complete(images, "val")


def test_another_split_or_other_classes_are_an_error(images: ImageTable) -> None:
    with pytest.raises(DataError, match="expected the split test"):
        make().check_complete(images, "test")
    with pytest.raises(DataError, match="are not the manifest's"):
        make().check_complete(replace(images, classes=("a", "c")), "val")


def test_arrays_that_do_not_fit_each_other_are_an_error() -> None:
    with pytest.raises(DataError, match=r"logits of shape \[1, 3\]"):
        Predictions.from_arrays("r", KEY, "val", ["x"], [0], np.zeros((1, 3)), ("a", "b"))
    with pytest.raises(DataError, match="classes 0 to 1"):
        Predictions.from_arrays("r", KEY, "val", ["x"], [2], np.zeros((1, 2)), ("a", "b"))


def test_logits_that_are_not_finite_are_named() -> None:
    logits = np.array([[0.0, 1.0], [np.nan, 0.0]])
    with pytest.raises(TrialError, match="1 of 2 images are not finite: y"):
        Predictions.from_arrays("r", KEY, "val", ["x", "y"], [0, 1], logits, ("a", "b"))


def test_a_foreign_or_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        Predictions.load(tmp_path / "none.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="not a predictions table"):
        Predictions.load(tmp_path / "x.parquet")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("finished"), SMALL)


def test_merged_file_has_val_of_every_candidate_and_test_of_the_chosen(finished: RunFolder) -> None:
    found = [p.source for p in read_predictions(finished.predictions)]
    assert found == sorted(found, key=lambda s: (s.key, s.split != "val"))
    assert sum(source.split == "val" for source in found) == 2 * 2 * 2
    tested = {s.key.id for s in found if s.split == "test"}
    assert tested == {t["trial_id"] for t in json.loads(finished.choice.read_text())["chosen"]}
    assert len(tested) == 4


def test_merging_needs_a_choice_and_every_chosen_test_table(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    chosen = json.loads(run.choice.read_text())["chosen"][0]["trial_id"]
    run.trial(chosen).predictions("test").unlink()
    with pytest.raises(DataError, match="is missing"):
        merge_predictions(run)
    run.choice.unlink()
    with pytest.raises(RunFolderError, match="after the choice"):
        merge_predictions(run)


def test_merging_refuses_a_test_table_of_a_trial_that_was_not_chosen(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    chosen = {t["trial_id"] for t in json.loads(run.choice.read_text())["chosen"]}
    other = next(p for p in sorted((run.path / "trials").iterdir()) if p.name not in chosen)
    trial = TrialSpec.from_json((other / "trial.json").read_text())
    predict(run, trial, "test", Manifest.load(run.manifest).images()).save(other / "predictions-test.parquet")
    with pytest.raises(DataError, match="was not chosen on validation"):
        merge_predictions(run)


def test_merging_refuses_a_table_of_another_trial(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    one, other = sorted((run.path / "trials").iterdir())[:2]
    (one / "predictions-val.parquet").write_bytes((other / "predictions-val.parquet").read_bytes())
    with pytest.raises(DataError, match="expected"):
        merge_predictions(run)


@pytest.mark.slow
def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    """Of 1,316 flips 56 gave other logits without complaint, and 685 ended in errors of no type of ours."""
    whole = make()
    whole.save(tmp_path / "whole.parquet")
    data = (tmp_path / "whole.parquet").read_bytes()
    path, found = tmp_path / "flipped.parquet", Counter[str]()
    for place in range(0, 8 * len(data), 5):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            read = Predictions.load(path)
        except (DataError, TrialError) as error:
            found["refused"] += 1
            assert str(path) in str(error)  # noqa: PT017
            continue
        found["read"] += 1
        is_same = read.image_ids == whole.image_ids and (read.labels == whole.labels).all()
        if not (is_same and (read.logits == whole.logits).all() and read.source == whole.source):
            found["silent"] += 1
    assert found["refused"] > 100
    assert not found["silent"], found
