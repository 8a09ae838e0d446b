from __future__ import annotations

import json
import logging
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.synthetic_run import Story, write_run
from transferlib.comparison.leaderboard import load_comparison, write_leaderboard
from transferlib.comparison.ledger import (
    FILE_NAME,
    Readings,
    fingerprint_test_set,
    ledger_path,
    read_readings,
    record_reading,
)
from transferlib.data.manifest import Manifest
from transferlib.errors import RunFolderError
from transferlib.runs import RunFolder, read_json

SMALL = Story(strategies=("last_layers", "full"), seeds=(0,), classes=("a", "b"), per_class=(1, 4, 4))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "first", SMALL)


def twin(run: RunFolder, number: int, story: Story = SMALL) -> RunFolder:
    """Return another run on the same photos."""
    other = write_run(run.path.parents[1].with_name(f"other-{number}"), story)
    renamed = other.path.with_name(f"20261126-02000{number}-compare-5eed")
    other.path.rename(renamed)
    return RunFolder(renamed)


def lines() -> list[dict[str, object]]:
    return [json.loads(line) for line in ledger_path().read_text().splitlines()]


def test_the_first_reading_is_no_note(run: RunFolder) -> None:
    assert record_reading(run).num_readings == 1
    assert load_comparison(run).verdict.notes == ()
    assert [entry["run"] for entry in lines()] == [run.run_id]
    assert lines()[0]["path"] == str(run.path)


def test_from_the_second_reading_on_the_verdict_says_what_it_does_to_the_error_rate(run: RunFolder) -> None:
    record_reading(run)
    second, third = twin(run, 2), twin(run, 3)
    assert record_reading(second).earlier == (run.run_id,)
    assert record_reading(third).earlier == (run.run_id, second.run_id)
    told = load_comparison(third).verdict.notes[-1]
    assert f"read by 2 runs before ({run.run_id}, {second.run_id})" in told
    assert "read 3 times, with choices in between, in up to 14 of 100" in told  # 1 - 0.95^3 = 0.1426
    assert "1 run before" in load_comparison(second).verdict.notes[-1]
    assert "up to 10 of 100" in load_comparison(second).verdict.notes[-1]  # 1 - 0.95^2 = 0.0975
    assert load_comparison(run).verdict.notes == ()


def test_the_note_stands_in_the_leaderboard_and_comes_from_the_run_folder_alone(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record_reading(run)
    second = twin(run, 2)
    record_reading(second)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    write_leaderboard(second)
    assert run.run_id in read_json(second.leaderboard("json"))["verdict"]["notes"][-1]
    assert run.run_id in second.leaderboard("md").read_text()


def test_a_run_that_goes_on_counts_once(run: RunFolder) -> None:
    record_reading(run)
    record_reading(twin(run, 2))
    assert record_reading(run).num_readings == 1
    (run.path / FILE_NAME).unlink()  # cut off between ledger and folder
    assert record_reading(run).num_readings == 1
    assert len(lines()) == 2


def test_what_counts_is_content_and_label_of_the_test_images(run: RunFolder) -> None:
    manifest = Manifest.load(run.manifest)
    rows = manifest.table.to_pylist()
    same = fingerprint_test_set(manifest)

    def changed(split: str, column: str, value: str) -> str:
        number = next(i for i, row in enumerate(rows) if row["split"] == split)
        table = [row | ({column: value} if i == number else {}) for i, row in enumerate(rows)]
        return fingerprint_test_set(replace(manifest, table=type(manifest.table).from_pylist(table)))

    assert changed("test", "image_id", "another/name.png") == same
    assert changed("train", "label", "b") == same
    assert changed("test", "label", "b") != same
    assert changed("test", "sha256", "0" * 64) != same
    assert changed("test", "status", "duplicate") != same
    assert changed("test", "split", "val") != same


def test_another_test_set_is_another_count(run: RunFolder) -> None:
    record_reading(run)
    other = twin(run, 2, replace(SMALL, per_class=(1, 4, 5)))
    assert record_reading(other).num_readings == 1


def test_a_damaged_line_is_passed_over_with_a_warning(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    record_reading(run)
    whole = ledger_path().read_bytes()
    ledger_path().write_bytes(b"\xff{\n[]\n" + whole + b'{"fingerprint": "cut o')
    with caplog.at_level(logging.WARNING):
        assert record_reading(twin(run, 2)).earlier == (run.run_id,)
    assert [record.getMessage().split(", ")[1] for record in caplog.records] == [
        f"line {number} is damaged and counts for nothing." for number in (1, 2, 4)
    ]
    assert json.loads(ledger_path().read_bytes().splitlines()[-1])["run"].startswith("20261126")


def test_the_ledger_is_the_users_alone(run: RunFolder, state: Path) -> None:
    record_reading(run)
    assert ledger_path() == state / "transferlib" / "test_readings.jsonl"
    assert stat.S_IMODE(ledger_path().stat().st_mode) == 0o600


def test_a_ledger_that_cannot_be_written_is_said_and_stops_nothing(
    run: RunFolder, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert record_reading(run).num_readings is None
    assert "is not known" in caplog.text
    assert str(state) in caplog.text
    assert read_json(run.path / FILE_NAME)["num_readings"] is None
    assert "is not known" in load_comparison(run).verdict.notes[-1]
    state.unlink()
    assert record_reading(run).num_readings == 1  # a run that goes on asks again


def test_jobs_that_end_together_see_each_other(run: RunFolder) -> None:
    runs = [run, *(twin(run, number) for number in range(2, 7))]
    threads = [threading.Thread(target=record_reading, args=(each,)) for each in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [read_readings(each) for each in runs]
    assert sorted(reading.num_readings for reading in found if reading) == [1, 2, 3, 4, 5, 6]  # type: ignore[type-var]
    assert len(lines()) == 6


def test_many_readings_are_named_shortly() -> None:
    told = Readings("f", "m", 6, tuple(f"run{number}" for number in range(5))).notes[0]
    assert "5 runs before (run2, run3, run4 and 2 before them)" in told


def test_a_damaged_record_in_the_run_folder_is_told(run: RunFolder) -> None:
    (run.path / FILE_NAME).write_text('{"fingerprint": 1}')
    with pytest.raises(RunFolderError, match="damaged"):
        load_comparison(run)


def test_a_user_without_a_home_is_no_error(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")

    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    assert record_reading(run).num_readings is None
    assert not os.environ.get("XDG_STATE_HOME")
