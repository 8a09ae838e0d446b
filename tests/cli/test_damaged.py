"""Files of a run that a power cut or a hand has changed: each verb says which, and shows what still holds."""

from __future__ import annotations

import json
import os
import shutil
from itertools import product
from pathlib import Path

import pytest

from tests.synthetic_run import Story, write_run
from transferlib.cli import main
from transferlib.records import TrialProgress
from transferlib.runs import RunFolder

TRIAL = "resnet18-full-s0-c0"
FILES = (
    "status.json",
    "plan.json",
    "choice.json",
    "leaderboard.json",
    "spec.yaml",
    "manifest.parquet",
    "environment.json",
    "predictions.parquet",
    "metrics.jsonl",
    "job.json",
    "test_readings.json",
    "prepared.json",
    f"trials/{TRIAL}/result.json",
    f"trials/{TRIAL}/progress.json",
    f"trials/{TRIAL}/metrics.csv",
)
DAMAGE = {"empty": b"", "cut": b'{"a"', "bytes": b"\xff\xfe\x00", "list": b"[]", "null": b"null", "other": b'{"a": 1}'}
VERBS = (
    ("status",),
    ("status", "--json"),
    ("result",),
    ("result", "--json"),
    ("list",),
    ("list", "--json"),
    ("logs",),
    ("wait", "--timeout", "1"),
    ("stop",),
    ("report",),
    ("verify",),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    story = Story(("last_layers", "full"), (0, 1), 1, classes=("a", "b"), per_class=(2, 4, 5), epochs=1)
    run = write_run(tmp_path_factory.mktemp("whole"), story)
    progress = TrialProgress(TRIAL, "done", 1, 1, 0, 3, 9.0, 0.0, 0.5, [0.5], 1.0, 2.0)
    run.trial(TRIAL).progress.write_text(progress.to_json())
    return run


@pytest.mark.parametrize("file", FILES)
def test_every_verb_says_what_is_damaged_and_none_ends_in_a_traceback(
    file: str, whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = "20261125-020001-compare-5eee"
    shutil.copytree(whole.path, tmp_path / "runs" / other)
    run = RunFolder(tmp_path / "runs" / whole.run_id)
    verbs = [verb for verb in VERBS if verb[0] not in ("report", "verify")]
    for kind, verb in [*product(DAMAGE, verbs), *product(("empty", "other"), VERBS[-2:])]:
        shutil.rmtree(run.path, ignore_errors=True)
        shutil.copytree(whole.path, run.path, copy_function=os.link)
        path = run.path / file
        path.unlink(missing_ok=True)  # the copy is a link: another file takes its place
        path.write_bytes(DAMAGE[kind])
        named = [] if verb[0] == "list" else [run.run_id]
        code = main._run([verb[0], *named, *verb[1:], "--runs", str(run.path.parent)])
        answer = capsys.readouterr()
        assert "Traceback" not in answer.err, (kind, verb)
        assert code in (0, 1, 2, 4), (kind, verb, answer.err)
        if code not in (0, 4) and verb[0] != "stop":
            assert len(answer.out + answer.err) > 20, (kind, verb)
        if verb[0] == "list":
            assert other in answer.out, (kind, "the other run is lost")
            assert run.run_id in answer.out, kind
        if "--json" in verb and code == 0:
            json.loads(answer.out)


@pytest.mark.parametrize(("file", "cure"), [("status.json", "--resume"), (f"trials/{TRIAL}/result.json", "trains")])
def test_status_names_the_file_and_the_cure(
    file: str, cure: str, whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "runs" / whole.run_id)
    shutil.copytree(whole.path, run.path)
    (run.path / file).write_bytes(b"")
    main._run(["status", run.run_id, "--runs", str(run.path.parent)])
    answer = capsys.readouterr()
    said = " ".join((answer.out + answer.err).split())
    assert f"{file.rpartition('/')[2]} is damaged: it is empty. Remove it: " in said
    assert cure in said


def test_status_as_json_names_a_damaged_plan(
    whole: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "runs" / whole.run_id)
    shutil.copytree(whole.path, run.path)
    run.plan.write_bytes(b"")
    assert main._run(["status", run.run_id, "--json", "--runs", str(run.path.parent)]) == 0
    (damaged,) = json.loads(capsys.readouterr().out)["damaged"]
    assert "plan.json is damaged: it is empty." in damaged
    assert main._run(["status", run.run_id, "--runs", str(run.path.parent)]) == 0
    assert "damaged   " in capsys.readouterr().out
