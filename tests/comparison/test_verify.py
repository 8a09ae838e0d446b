from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.synthetic_run import Story, write_run
from transferlib.comparison.choose import read_choice
from transferlib.comparison.ledger import FILE_NAME, record_reading
from transferlib.comparison.mismatches import Verification
from transferlib.comparison.verify import verify_run
from transferlib.data.manifest import Manifest
from transferlib.errors import RunFolderError
from transferlib.evaluation.predictions import Predictions, read_predictions, schema_with
from transferlib.records import TrialKey
from transferlib.runs import RunFolder, file_sha256, link_or_copy, read_json, write_json

STORY = Story(
    strategies=("last_layers", "full"),
    num_candidates=2,
    classes=("a", "b", "c"),
    per_class=(2, 6, 8),
    failed={"resnet18-full-s2-c1": "the loss is not finite"},
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Write one finished run that has read its test set for the first time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        run = write_run(tmp_path_factory.mktemp("whole"), STORY)
        record_reading(run)
    return run


@pytest.fixture
def run(whole: RunFolder, tmp_path: Path) -> RunFolder:
    return copied(whole, tmp_path)


def copied(run: RunFolder, folder: Path) -> RunFolder:
    shutil.copytree(run.path, folder / run.run_id)
    return RunFolder(folder / run.run_id)


@dataclass(frozen=True)
class Flip:
    """One thing that is changed in a run, and where it must be found."""

    what: str
    change: Callable[[RunFolder], None]
    file: str
    """That must be named."""
    place: str = ""
    """What the mismatch must say of it."""


def rewrite_predictions(run: RunFolder, change: Callable[[list[pa.Table]], list[pa.Table]]) -> None:
    """Write `predictions.parquet` anew, a row group a table, and remove what the trials wrote themselves."""
    tables = [predictions.to_table() for predictions in read_predictions(run.predictions)]
    classes = next(read_predictions(run.predictions)).classes
    with pq.ParquetWriter(run.predictions, schema_with(classes)) as writer:
        for table in change(tables):
            writer.write_table(table, row_group_size=max(table.num_rows, 1))
    for path in run.path.glob("trials/*/predictions-*.parquet"):
        path.unlink()


def key_of(table: pa.Table) -> tuple[str, str]:
    first = table.slice(0, 1).to_pylist()[0]
    return TrialKey.of_arm(first["arm"], first["seed"], first["candidate"]).id, first["split"]


def edit_rows(trial_id: str, split: str, edit: Callable[[list[dict[str, Any]]], None]) -> Callable[[RunFolder], None]:
    """Return a change to the rows of one table of `predictions.parquet`."""

    def change(run: RunFolder) -> None:
        def edited(tables: list[pa.Table]) -> list[pa.Table]:
            assert (trial_id, split) in map(key_of, tables)
            return [edited_table(table) if key_of(table) == (trial_id, split) else table for table in tables]

        def edited_table(table: pa.Table) -> pa.Table:
            rows = table.to_pylist()
            edit(rows)
            return pa.Table.from_pylist(rows, table.schema)

        rewrite_predictions(run, edited)

    return change


def flip_label(rows: list[dict[str, Any]]) -> None:
    rows[3]["label"] = (rows[3]["label"] + 1) % 3


def nudge_logit(rows: list[dict[str, Any]]) -> None:
    rows[2]["logits"][1] += 0.01


def swap_logits_of_a_row(rows: list[dict[str, Any]]) -> None:
    rows[1]["logits"] = rows[1]["logits"][::-1]


def swap_ids(rows: list[dict[str, Any]]) -> None:
    rows[0]["image_id"], rows[1]["image_id"] = rows[1]["image_id"], rows[0]["image_id"]


def lose_row(rows: list[dict[str, Any]]) -> None:
    del rows[4]


def double_row(rows: list[dict[str, Any]]) -> None:
    rows.append(dict(rows[4]))


def rename_image(rows: list[dict[str, Any]]) -> None:
    rows[0]["image_id"] = "somewhere/else.png"


def change_one_seed(rows: list[dict[str, Any]]) -> None:
    rows[0]["seed"] += 7


def change_run(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["run"] = "20261125-020000-compare-0000"


def nan_logit(rows: list[dict[str, Any]]) -> None:
    rows[0]["logits"][0] = float("nan")


ROW_EDITS = (
    flip_label,
    swap_ids,
    lose_row,
    double_row,
    rename_image,
    change_one_seed,
    change_run,
    nan_logit,
)
LOGIT_EDITS = (nudge_logit, swap_logits_of_a_row)


def predictions_flips(choice_ids: Sequence[str], all_ids: Sequence[str]) -> Iterator[Flip]:
    unchosen = [trial_id for trial_id in all_ids if trial_id not in choice_ids]
    tables = [(choice_ids[0], "test"), (choice_ids[-1], "test"), (choice_ids[1], "val"), (unchosen[0], "val")]
    for trial_id, split in tables:
        for edit in ROW_EDITS:
            yield Flip(
                f"{edit.__name__} of {trial_id} {split}", edit_rows(trial_id, split, edit), "predictions.parquet"
            )
        for edit in LOGIT_EDITS:
            file, place = ("choice.json", f"[{trial_id}]") if split == "val" else ("leaderboard.json", "log_loss")
            yield Flip(f"{edit.__name__} of {trial_id} {split}", edit_rows(trial_id, split, edit), file, place)

    def lost(run: RunFolder) -> None:
        rewrite_predictions(run, lambda tables: tables[1:])

    def doubled(run: RunFolder) -> None:
        rewrite_predictions(run, lambda tables: [*tables, tables[0]])

    def in_the_trials_place(run: RunFolder) -> None:
        folder = run.trial(choice_ids[0])
        own = Predictions.load(folder.predictions("test"))
        same = np.flatnonzero(own.labels == own.labels[0])[:2]
        logits = own.logits.copy()
        logits[same] = logits[same[::-1]]  # two images of one class change places: no metric of this model changes
        replace(own, logits=logits).save(folder.predictions("test"))

    yield Flip("a table is lost", lost, "predictions.parquet", "lacks")
    yield Flip("a table stands there twice", doubled, "predictions.parquet", "twice")
    yield Flip("two rows of one class change places", in_the_trials_place, "predictions.parquet", "the trial wrote")
    yield Flip("no predictions", lambda run: run.predictions.unlink(), "predictions.parquet", "missing")
    yield Flip("cut off", lambda run: os.truncate(run.predictions, 900), "predictions.parquet")


def edit_manifest(split: str, column: str, value: Any) -> Callable[[RunFolder], None]:
    def change(run: RunFolder) -> None:
        manifest = Manifest.load(run.manifest)
        rows = manifest.table.to_pylist()
        row = next(row for row in rows if row["split"] == split and row["status"] == "used")
        assert row[column] != value
        row[column] = value
        replace(manifest, table=pa.Table.from_pylist(rows, manifest.table.schema)).save(run.manifest)

    return change


def manifest_flips() -> Iterator[Flip]:
    for split in ("train", "val", "test"):
        other = {"train": "val", "val": "test", "test": "train"}[split]
        for column, value in (
            ("split", other),
            ("split", "holdout"),
            ("label", "c"),
            ("label", "unheard of"),
            ("group", "one patient"),
            ("status", "skipped"),
            ("sha256", "0" * 64),
            ("image_id", "renamed.png"),
        ):
            what = f"{column} of a {split} image becomes {value[:12]}"
            yield Flip(what, edit_manifest(split, column, value), "manifest.parquet")


def edit_json(file: str, path: Sequence[Any], value: Any) -> Callable[[RunFolder], None]:
    def change(run: RunFolder) -> None:
        plain = inner = read_json(run.path / file)
        for key in path[:-1]:
            inner = inner[key]
        assert inner[path[-1]] != value
        inner[path[-1]] = value
        write_json(run.path / file, plain)

    return change


def cost_flips(chosen: str, unchosen: str) -> Iterator[Flip]:
    for name, value, place in (
        ("seconds", 1.25, ".seconds"),
        ("images_per_s", 3.5, ".images_per_s"),
        ("peak_memory_bytes", 2**40, ".peak_memory_bytes"),
        ("trained_parameters", 10**9, ".trained_parameters"),
        ("epochs", 1, ".train_flops"),
    ):
        change = edit_json(f"trials/{chosen}/result.json", [name], value)
        yield Flip(f"{name} of a chosen trial", change, "leaderboard.json", place)
    for trial_id in (chosen, unchosen):
        file = f"trials/{trial_id}/result.json"
        yield Flip(
            "parameters", edit_json(file, ["total_parameters"], 7), "choice.json", f"[{trial_id}].num_parameters"
        )
        for name, value in (("val_accuracy", 0.123), ("val_loss", 0.123), ("val_score", 0.123), ("best_epoch", 0)):
            place = "val_accuracy" if name == "best_epoch" else name
            yield Flip(f"{name} of {trial_id}", edit_json(file, [name], value), file, place)
        yield Flip("epochs", edit_json(file, ["epochs"], 99), file, "epochs")
        yield Flip("rate", edit_json(file, ["lr"], 0.77), file, "0.77")
        yield Flip("seed", edit_json(file, ["seed"], 77), file, "s77")
        yield Flip("state", edit_json(file, ["state"], "failed"), "choice.json", trial_id)
        yield Flip("no result", lambda run, file=file: (run.path / file).unlink(), file, "missing")  # type: ignore[misc]
    yield Flip("reason", edit_json("trials/resnet18-full-s2-c1/result.json", ["reason"], "?"), "choice.json", "reason")


def leaves(plain: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(plain, dict | list):
        for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
            yield from leaves(value, (*path, key))
    else:
        yield path, plain


def another(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 1.001 + 1e-6
        case str():
            return value + "!"
    return 0.5


def figure_flips(run: RunFolder, file: str, number: int) -> Iterator[Flip]:
    """Change about `number` of the figures of a JSON file, evenly over it."""
    found = [(path, value) for path, value in leaves(read_json(run.path / file)) if path[-1] != "schema"]
    for path, value in found[:: max(len(found) // number, 1)]:
        name = str(path[-1]) if not isinstance(path[-1], int) else str(path[-2])
        yield Flip(f"{file} {path}", edit_json(file, path, another(value)), file, name)


def edit_text(file: str, old: str, new: str) -> Callable[[RunFolder], None]:
    def change(run: RunFolder) -> None:
        text = (run.path / file).read_text()
        assert old in text
        (run.path / file).write_text(text.replace(old, new, 1))

    return change


def text_flips(run: RunFolder) -> Iterator[Flip]:
    header, first, *_ = run.leaderboard("csv").read_text().splitlines()
    for column in (
        "val_accuracy_mean",
        "test_macro_f1_low",
        "test_log_loss_seed_std",
        "seconds",
        "lr",
        "trials_failed",
    ):
        cells = first.split(",")
        place = header.split(",").index(column)
        cells[place] = str(another(float(cells[place]))) if column != "lr" else "0:0.5"
        change = edit_text("leaderboard.csv", first, ",".join(cells))
        yield Flip(f"{column} in csv", change, "leaderboard.csv", f"{cells[0]}.{column}")
    yield Flip("csv header", edit_text("leaderboard.csv", "seconds", "hours"), "leaderboard.csv", "header")
    yield Flip("csv row", edit_text("leaderboard.csv", first + "\n", ""), "leaderboard.csv")
    text = run.leaderboard("md").read_text()
    for number, line in enumerate(text.split("\n"), start=1):
        if digits := [character for character in line if character.isdigit()]:
            new = line.replace(digits[-1], str((int(digits[-1]) + 1) % 10), 1)
            yield Flip(f"md line {number}", edit_text("leaderboard.md", line, new), "leaderboard.md", f"line {number}")
    for file in ("choice.json", "leaderboard.json", "leaderboard.csv", "leaderboard.md", "plan.json", "spec.yaml"):
        yield Flip(f"no {file}", lambda run, file=file: (run.path / file).unlink(), file)  # type: ignore[misc]
    for file in ("choice.json", "leaderboard.json", "plan.json", FILE_NAME):
        yield Flip(f"{file} cut off", lambda run, file=file: os.truncate(run.path / file, 20), "")  # type: ignore[misc]
    yield Flip("fingerprint", edit_json(FILE_NAME, ["fingerprint"], "0"), FILE_NAME, "fingerprint")
    yield Flip("readings", edit_json(FILE_NAME, ["num_readings"], 3), "leaderboard.json", "notes")


def all_flips(run: RunFolder) -> Iterator[Flip]:
    choice = read_choice(run)
    assert choice is not None
    ids = [candidate.trial_id for candidate in choice.candidates]
    yield from predictions_flips(choice.trial_ids, ids)
    yield from manifest_flips()
    yield from cost_flips(choice.trial_ids[0], next(i for i in ids if i not in choice.trial_ids))
    yield from figure_flips(run, "leaderboard.json", 24)
    yield from figure_flips(run, "choice.json", 10)
    yield from text_flips(run)


def told(verification: Verification) -> list[str]:
    return [str(mismatch) for mismatch in verification.mismatches]


def test_a_finished_run_follows_from_its_sources(run: RunFolder) -> None:
    verification = verify_run(run)
    assert told(verification) == []
    assert verification.num_figures > 500


def test_what_only_some_places_keep_need_not_be_there(run: RunFolder) -> None:
    for path in run.path.glob("trials/*/predictions-*.parquet"):
        path.unlink()
    (run.path / FILE_NAME).unlink()
    assert told(verify_run(run)) == []


@pytest.mark.slow
def test_whatever_is_changed_is_found_and_named(whole: RunFolder, tmp_path: Path) -> None:
    flips = list(all_flips(whole))
    unseen = []
    for number, flip in enumerate(flips):
        run = copied(whole, tmp_path / str(number))
        flip.change(run)
        found = told(verify_run(run))
        if not any(line.startswith(flip.file) and flip.place in line for line in found):
            unseen.append((flip.what, flip.file, flip.place, found[:4]))
        shutil.rmtree(run.path.parent)
    print(f"\n{len(flips)} changes")
    assert unseen == []
    assert len(flips) >= 100


def test_the_last_digits_of_another_processor_are_no_difference(run: RunFolder) -> None:
    board = read_json(run.leaderboard("json"))

    def nudged(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: nudged(below) for key, below in value.items()}
        if isinstance(value, list):
            return [nudged(below) for below in value]
        return value * (1 + 1e-12) if isinstance(value, float) else value

    write_json(run.leaderboard("json"), nudged(board))
    assert told(verify_run(run)) == []


def test_of_long_texts_the_part_that_differs_is_shown() -> None:
    verification = Verification()
    verification.compare("a.md", "line 1", f"{'x' * 200}1{'y' * 200}", f"{'x' * 200}2{'y' * 200}")
    one, other = (f"...{'x' * 20}{digit}{'y' * 59}..." for digit in (1, 2))
    assert told(verification) == [f"a.md, line 1: says '{one}', should be '{other}'."]


def test_another_model_than_the_one_named_is_found(run: RunFolder) -> None:
    choice = read_choice(run)
    assert choice is not None
    assert choice.model is not None
    best = run.trial(choice.model.trial_id).best
    best.write_bytes(b"weights")
    link_or_copy(best, run.model)
    assert told(verify_run(run)) == []
    run.model.unlink()
    run.model.write_bytes(b"Weights")
    assert told(verify_run(run)) == [
        f"model/model.safetensors: is not the model of {choice.model.trial_id}, which is best on validation."
    ]


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_model_that_is_not_there_is_named(what: str, run: RunFolder) -> None:
    run.model.unlink() if what == "missing" else run.model.write_bytes(b"")
    assert told(verify_run(run)) == [
        f"model/model.safetensors: is {what}; `submit compare --resume {run.run_id}` makes it again."
    ]


def test_a_model_without_its_trials_own_is_held_against_what_that_recorded(run: RunFolder) -> None:
    choice = read_choice(run)
    assert choice is not None
    assert choice.model is not None
    folder = run.trial(choice.model.trial_id)
    result = read_json(folder.result)
    write_json(folder.result, {**result, "files": {folder.best.name: file_sha256(run.model)}})
    assert told(verify_run(run)) == []
    run.model.write_bytes(b"Weights")
    assert told(verify_run(run)) == [
        f"model/model.safetensors: is not the model of {choice.model.trial_id}, which is best on validation."
    ]


def test_what_else_is_checked_is_asked_with_the_run(run: RunFolder) -> None:
    def check(folder: RunFolder, verification: Verification) -> None:
        verification.add("report.html", "is empty.", folder.run_id)

    assert told(verify_run(run, check)) == [f"report.html, {run.run_id}: is empty."]


def test_an_older_versions_result_is_told_apart_from_a_changed_one(run: RunFolder) -> None:
    write_json(run.leaderboard("json"), {"schema": 1, "verdict": "A wins."})
    with pytest.raises(RunFolderError, match=f"older version .*submit compare --resume {run.run_id}"):
        verify_run(run)


def test_a_run_without_a_result_is_no_run_to_verify(tmp_path: Path) -> None:
    run = write_run(tmp_path, replace(STORY, failed={}, unfinished=("resnet18-full-s0-c0",)))
    with pytest.raises(RunFolderError, match="has no result that could be verified: it is stopped"):
        verify_run(run)


def test_a_renamed_folder_is_told(run: RunFolder) -> None:
    renamed = RunFolder(run.path.with_name("my-favourite"))
    run.path.rename(renamed.path)
    with pytest.raises(RunFolderError, match=f"holds run {run.run_id}"):
        verify_run(renamed)


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_verifying_loads_no_torch_and_takes_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 arms x 5 seeds x 2 rates, 400 images in validation and test each."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = write_run(tmp_path, Story(seeds=tuple(range(5)), num_candidates=2, per_class=(2, 100, 100)))
    record_reading(run)
    code = (
        "import sys; from pathlib import Path; from transferlib.runs import RunFolder;"
        "from transferlib.comparison.verify import verify_run;"
        f"found = verify_run(RunFolder(Path({str(run.path)!r})));"
        "print(len(found.mismatches), sorted({'torch', 'ray', 'matplotlib'} & set(sys.modules)))"
    )
    begun, before = time.monotonic(), processor_s()
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    taken = processor_s() - before
    print(f"\n{time.monotonic() - begun:.2f} s, {taken:.2f} s of a processor")
    assert answer.stdout == "0 []\n", answer.stderr
    assert taken < 5.0  # a neighbour on the machine is not in it


def test_json_of_the_board_is_what_is_compared(run: RunFolder) -> None:
    """Order of keys and layout of the file are nobody's figure."""
    board = read_json(run.leaderboard("json"))
    run.leaderboard("json").write_text(json.dumps(dict(reversed(board.items()))))
    assert told(verify_run(run)) == []
