from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.synthetic_run import Story, write_run
from transferlib.comparison.choose import choose_candidates
from transferlib.comparison.diff import compare_runs
from transferlib.comparison.leaderboard import load_comparison
from transferlib.data.manifest import Manifest
from transferlib.errors import DataError, RunFolderError
from transferlib.evaluation.predictions import Predictions, merge_predictions
from transferlib.runs import RunFolder

STORY = Story(strategies=("last_layers", "full"), num_candidates=1, classes=("a", "b", "c"), per_class=(2, 6, 12))
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("written"), STORY)


@pytest.fixture
def make(written: RunFolder, tmp_path: Path) -> Callable[..., RunFolder]:
    """Return a maker of runs like the written one, with another id."""
    made: list[RunFolder] = []

    def make_run(edit: Callable[[Rows], None] | None = None, scale: float = 1.0) -> RunFolder:
        """Copy the run; change rows of its manifest, and its logits on test by a factor and some noise."""
        run = RunFolder(tmp_path / f"2026112{len(made)}-020000-compare-5eed")
        shutil.copytree(written.path, run.path)
        made.append(run)
        manifest = Manifest.load(run.manifest)
        rows = manifest.table.to_pylist()
        before = {row["image_id"]: row for row in map(dict, rows)}
        if edit is not None:
            edit(rows)
        renamed = {old: row["image_id"] for old, row in zip(before, rows, strict=True)}
        labels = {row["image_id"]: row["label"] for row in rows}
        used = {row["image_id"] for row in rows if row["status"] == "used"}
        rows.sort(key=lambda row: str(row["image_id"]))
        changed = replace(manifest, table=pa.Table.from_pylist(rows, manifest.table.schema))
        changed.save(run.manifest)
        for path in run.path.glob("trials/*/predictions-*.parquet"):
            old = Predictions.load(path)
            noise = np.random.default_rng(old.source.key.seed).normal(0, 1, old.logits.shape)
            is_test = old.source.split == "test"
            ids = [renamed[image_id] for image_id in old.image_ids]
            kept = [row for row, image_id in enumerate(ids) if image_id in used]
            logits = old.logits * scale + (noise * (scale != 1.0) if is_test else 0)
            Predictions.from_arrays(
                run.run_id,
                old.source.key,
                old.source.split,
                [ids[row] for row in kept],
                [manifest.classes.index(labels[ids[row]]) for row in kept],
                logits[kept].astype(np.float32),
                old.classes,
            ).save(path)
        run.predictions.unlink()
        (run.path / "choice.json").unlink()
        tests = {path: path.read_bytes() for path in run.path.glob("trials/*/predictions-test.parquet")}
        for path in tests:
            path.unlink()
        choose_candidates(run)
        for path, content in tests.items():
            path.write_bytes(content)
        merge_predictions(run)
        return run

    return make_run


def rows_of_test(rows: Rows) -> Rows:
    return [row for row in rows if row["split"] == "test" and row["status"] == "used"]


def test_a_run_differs_from_itself_in_nothing(make: Callable[..., RunFolder]) -> None:
    a, b = make(), make()
    found = compare_runs(a, b)
    assert (found.num_shared, found.num_only, found.matched_by) == (36, (0, 0), "content")
    assert {arm.what for arm in found.arms} == {"resnet18-last_layers", "resnet18-full"}
    for each in (found.models, *found.arms):
        assert each is not None
        assert each.pair.difference == 0
        assert each.pair.these_models.p == 1
        assert each.pair.these_models.low < 0 < each.pair.these_models.high
    assert found.models is not None
    assert found.models.pair.if_trained_again is None
    assert all(arm.pair.if_trained_again is not None for arm in found.arms)
    assert found.notes == ()
    (note,) = compare_runs(a, a).notes
    assert note.startswith("Both are the same run")
    assert compare_runs(a, a, arm="resnet18-full", arm_b="resnet18-last_layers").notes == ()


def test_figures_are_those_of_the_runs_where_all_images_are_shared(make: Callable[..., RunFolder]) -> None:
    a, b = make(), make(scale=0.5)
    found = compare_runs(a, b)
    boards = [load_comparison(run) for run in (a, b)]
    of_models = [board.model.test.value for board in boards if board.model and board.model.test]
    assert found.models is not None
    assert [found.models.a.mean, found.models.b.mean] == pytest.approx(of_models)
    assert found.models.pair.difference == pytest.approx(of_models[0] - of_models[1])
    for arm in found.arms:
        figures = [next(x for x in board.arms if x.arm == arm.what).figure("test", "accuracy") for board in boards]
        assert [arm.a.mean, arm.b.mean] == pytest.approx([figure.mean for figure in figures if figure])
    assert found.shortfall > 0


def test_swapping_the_runs_negates(make: Callable[..., RunFolder]) -> None:
    a, b = make(), make(scale=0.3)
    one, other = compare_runs(a, b), compare_runs(b, a)
    for x, y in zip((one.models, *one.arms), (other.models, *other.arms), strict=True):
        assert x is not None
        assert y is not None
        assert x.pair.difference == pytest.approx(-y.pair.difference)
        assert x.pair.these_models.low == pytest.approx(-y.pair.these_models.high)
        assert x.pair.these_models.p_holm == pytest.approx(y.pair.these_models.p_holm)


def test_images_are_the_same_where_their_bytes_are_whatever_they_are_called(make: Callable[..., RunFolder]) -> None:
    def rename(rows: Rows) -> None:
        for number, row in enumerate(rows_of_test(rows)):
            row["image_id"] = f"test/renamed/{999 - number:03}.png"  # the order is another one too

    found = compare_runs(make(), make(rename))
    assert (found.num_shared, found.matched_by) == (36, "content")
    assert found.models is not None
    assert found.models.pair.difference == 0
    assert found.models.pair.num_discordant == 0


def test_only_shared_images_are_compared(make: Callable[..., RunFolder]) -> None:
    def lose_five(rows: Rows) -> None:
        for row in rows_of_test(rows)[:5]:
            row["status"] = "skipped"

    def lose_two_others(rows: Rows) -> None:
        for row in rows_of_test(rows)[-2:]:
            row["status"] = "skipped"

    found = compare_runs(make(lose_five), make(lose_two_others))
    assert (found.num_shared, found.num_only) == (36 - 7, (2, 5))
    assert found.to_plain()["images"] == {"shared": 29, "only_a": 2, "only_b": 5, "matched_by": "content"}


def test_ids_serve_where_no_content_is_the_same_and_that_is_said(make: Callable[..., RunFolder]) -> None:
    def save_anew(rows: Rows) -> None:
        for row in rows_of_test(rows):
            row["sha256"] = row["sha256"][::-1]

    found = compare_runs(make(), make(save_anew))
    assert (found.num_shared, found.matched_by) == (36, "image_id")
    assert "matched by their ids" in found.notes[0]


def test_nothing_shared_is_an_error(make: Callable[..., RunFolder]) -> None:
    def replace_all(rows: Rows) -> None:
        for number, row in enumerate(rows_of_test(rows)):
            row |= {"sha256": f"{number:064}", "image_id": f"test/other/{number}.png"}

    with pytest.raises(DataError, match="share 0 of their 36 and 36 test images; a comparison needs 2 or more"):
        compare_runs(make(), make(replace_all))


def test_labels_that_do_not_agree_are_an_error(make: Callable[..., RunFolder]) -> None:
    def relabel(rows: Rows) -> None:
        row = rows_of_test(rows)[0]
        assert row["label"] == "a"
        row["label"] = "b"

    with pytest.raises(DataError, match=r"1 of 36 shared test images have another label.*test/a/000.png \(a and b\)"):
        compare_runs(make(), make(relabel))


def test_other_classes_are_an_error(make: Callable[..., RunFolder], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", replace(STORY, classes=("a", "b", "dandelion")))
    with pytest.raises(DataError, match=r"only .*5eed has 'c'; only .*5eed has 'dandelion'"):
        compare_runs(make(), other)


def test_images_that_belong_together_in_either_run_count_as_one(make: Callable[..., RunFolder]) -> None:
    def group(start: int, size: int) -> Callable[[Rows], None]:
        def edit(rows: Rows) -> None:
            for row in rows_of_test(rows)[start : start + size]:
                row["group"] = f"patient {start}"

        return edit

    alone = compare_runs(make(), make(scale=0.3)).models
    grouped = compare_runs(make(group(0, 6)), make(group(4, 6), scale=0.3)).models
    assert alone is not None
    assert grouped is not None
    assert alone.pair.these_models.df == 35
    # Ten images became one group among 26 single ones: as many as that weighs in groups of equal size.
    assert grouped.pair.these_models.df == pytest.approx(36**2 / (10**2 + 26) - 1)
    assert grouped.pair.difference == pytest.approx(alone.pair.difference)


def test_named_arms_are_compared_alone(make: Callable[..., RunFolder]) -> None:
    a, b = make(), make(scale=0.3)
    found = compare_runs(a, b, arm="resnet18-full", arm_b="resnet18-last_layers")
    assert found.models is None
    assert [(arm.what, arm.than) for arm in found.arms] == [("resnet18-full", "resnet18-last_layers")]
    assert found.first is found.arms[0]
    assert compare_runs(a, b, arm="resnet18-full").arms[0].than == "resnet18-full"
    with pytest.raises(RunFolderError, match=r"Unknown arm 'resnet18-ful'\. Did you mean 'resnet18-full'"):
        compare_runs(a, b, arm="resnet18-ful")


def test_p_values_hold_over_all_arms(make: Callable[..., RunFolder]) -> None:
    a, b = make(), make(scale=0.3)
    both = {arm.what: arm.pair.these_models for arm in compare_runs(a, b).arms}
    alone = {name: compare_runs(a, b, arm=name).arms[0].pair.these_models for name in both}
    assert [alone[name].p for name in both] == pytest.approx([both[name].p for name in both])
    smaller, larger = sorted(both.values(), key=lambda reading: reading.p)
    assert smaller.p_holm == pytest.approx(min(1, max(2 * smaller.p, 0)))
    assert larger.p_holm == pytest.approx(max(larger.p, smaller.p_holm))


def test_a_run_that_has_not_ended_is_told(make: Callable[..., RunFolder], tmp_path: Path) -> None:
    stopped = write_run(tmp_path / "stopped", replace(STORY, unfinished=("resnet18-full-s0-c0",)))
    with pytest.raises(RunFolderError, match="has not read its test set"):
        compare_runs(make(), stopped)


def test_runs_without_a_common_arm_are_compared_by_their_models(make: Callable[..., RunFolder], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", replace(STORY, strategies=("feature_extraction", "scratch")))
    found = compare_runs(make(), other)
    assert found.arms == ()
    assert found.models is not None
    assert "no arm in common" in found.notes[0]


@pytest.mark.parametrize(
    ("one", "other", "pairs"), [("abc", "cab", 3), ("aab", "aac", 2), ("aa", "a", 1), ("a", "", 0)]
)
def test_the_same_content_several_times_is_paired_in_order(
    one: Sequence[str], other: Sequence[str], pairs: int
) -> None:
    from transferlib.comparison.diff import _pairs

    found = _pairs(one, other)
    assert len(found) == pairs
    assert all(one[x] == other[y] for x, y in found)
    assert len({y for _, y in found}) == pairs
