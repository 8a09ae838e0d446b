"""Files of a run that a power cut or a hand has changed: each verb says which, and shows what still holds."""

from __future__ import annotations

import json
import os
import shutil
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
    "log/messages.txt",
    "log/job.log",
    "augmentation.png",
)
DEEP = b"[" * 100_000
DAMAGE: dict[str, bytes | None] = {
    "empty": b"",
    "cut": b'{"a"',
    "bytes": b"\xff\xfe\x00",
    "list": b"[]",
    "null": b"null",
    "other": b'{"a": 1}',
    "deep": DEEP,
    "folder": b"",
    "gone": None,
}
OTHER = "20261125-020001-compare-5eee"
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
    ("diff", OTHER),
)
SLOW = ("report", "verify", "diff")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    story = Story(("last_layers", "full"), (0, 1), 1, classes=("a", "b"), per_class=(2, 4, 5), epochs=1)
    run = write_run(tmp_path_factory.mktemp("whole"), story)
    progress = TrialProgress(TRIAL, "done", 1, 1, 0, 3, 9.0, 0.0, 0.5, [0.5], 1.0, 2.0)
    run.trial(TRIAL).progress.write_text(progress.to_json())
    return run


def damage(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)  # the copy is a link: another file takes its place
    if kind == "folder":
        path.mkdir()
    elif (content := DAMAGE[kind]) is not None:
        path.write_bytes(content)


class Damaged:
    """A run of two in a folder, made anew before each look."""

    def __init__(self, whole: RunFolder, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copytree(whole.path, folder / "runs" / OTHER)
        self.run = RunFolder(folder / "runs" / whole.run_id)
        self._whole = whole
        self._capsys = capsys

    def renew(self) -> RunFolder:
        shutil.rmtree(self.run.path, ignore_errors=True)
        shutil.copytree(self._whole.path, self.run.path, copy_function=os.link)
        return self.run

    def look(self, verb: tuple[str, ...], what: object) -> tuple[int, str, str]:
        """Call a verb, whose answer must be fit for people; return code, stdout and stderr."""
        named = [] if verb[0] == "list" else [self.run.run_id]
        code = main._run([verb[0], *named, *verb[1:], "--runs", str(self.run.path.parent)])
        answer = self._capsys.readouterr()
        assert "Traceback" not in answer.err, (what, verb)
        assert code in (0, 1, 2, 4), (what, verb, answer.err)
        if code not in (0, 4) and verb[0] != "stop":
            assert len(answer.out + answer.err) > 20, (what, verb)
        if verb[0] == "list":
            assert OTHER in answer.out, (what, "the other run is lost")
            if what != "spec.yaml":
                assert self.run.run_id in answer.out, what
        if "--json" in verb and code == 0:
            json.loads(answer.out)
        return code, answer.out, answer.err


@pytest.fixture
def damaged(
    quick_reports: None,
    whole: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Damaged:
    monkeypatch.chdir(tmp_path)
    return Damaged(whole, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_every_verb_says_what_is_damaged_and_none_ends_in_a_traceback(file: str, damaged: Damaged) -> None:
    verbs = [verb for verb in VERBS if verb[0] not in SLOW]
    slow = [verb for verb in VERBS if verb[0] in SLOW]
    for kind in DAMAGE:
        damage(damaged.renew().path / file, kind)
        for verb in [*verbs, *(slow if kind in ("other", "folder", "gone") else [])]:
            damaged.look(verb, "spec.yaml" if file == "spec.yaml" else (kind, file))


MODEL = {"path": "model/model.safetensors", "arm": "resnet18-full", "seed": 0, "val": 0.9, "test": {"value": 0.9}}
WRONG: tuple[tuple[str, str, object], ...] = (
    *(("status.json", "updated_at", value) for value in ("text", 1e308, -1, None, [])),
    *(("status.json", "state", value) for value in (5, None, [], {}, "odd")),
    *(("status.json", "exit_code", value) for value in ("x", 1e308, 10**30)),
    ("status.json", "message", 5),
    *(("plan.json", "epochs", value) for value in (None, "ten", 1.5)),
    ("plan.json", "trials", []),
    ("plan.json", "images", {"train": "x"}),
    *(("choice.json", "chosen", value) for value in (None, 5, {}, [5], [{"arm": 5}])),
    *(("leaderboard.json", "metric", value) for value in (None, 5, "odd", [])),
    *(("leaderboard.json", "verdict", value) for value in (None, 5, {}, {"sentences": 5, "notes": []})),
    *(("leaderboard.json", "arms", value) for value in (None, 5, {}, [5], [{"arm": 5}])),
    *(("leaderboard.json", "chance", value) for value in (5, {}, {"value": "x"})),
    *(("leaderboard.json", "model", value) for value in (5, [], {}, {**MODEL, "val": "x"}, {**MODEL, "test": 5})),
    (f"trials/{TRIAL}/result.json", "val_accuracy", "x"),
    (f"trials/{TRIAL}/result.json", "seed", "x"),
    (f"trials/{TRIAL}/progress.json", "val_accuracy", 5),
    ("environment.json", "versions", 5),
    ("prepared.json", "origins", 5),
    ("test_readings.json", "earlier", 5),
)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "name", "value"), WRONG)
def test_a_value_of_another_type_is_told_by_every_verb(file: str, name: str, value: object, damaged: Damaged) -> None:
    is_of_report = file.startswith(("plan", "choice", "environment", "prepared", "test_readings", "trials"))
    path = damaged.renew().path / file
    plain = json.loads(path.read_text()) if path.exists() else {}
    path.unlink(missing_ok=True)
    path.write_text(json.dumps({**plain, name: value}))
    for verb in [*(verb for verb in VERBS if verb[0] not in SLOW), *([("report",)] if is_of_report else [])]:
        damaged.look(verb, (file, name, value))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["empty", "gone", "deep", "folder", "other"])
def test_without_a_status_what_else_there_is_is_shown(kind: str, damaged: Damaged) -> None:
    damage(damaged.renew().status, kind)
    damaged.run.job_log.write_text("a line of the log\n")
    _, result, why = damaged.look(("result",), kind)
    assert "resnet18-full" in result
    assert "status.json" in why
    assert damaged.look(("report",), kind)[0] == 0
    assert damaged.look(("diff", OTHER), kind)[0] == 0
    assert damaged.look(("verify",), kind)[0] == 0
    assert damaged.look(("logs",), kind)[1] == "a line of the log\n"
    assert "status.json" in damaged.look(("list",), kind)[1]
    said = "".join(damaged.look(("status",), kind)[1:])
    assert "status.json" in said
    assert "days ago" not in said


def test_list_shows_why_a_run_cannot_be_read_and_the_others_as_they_are(damaged: Damaged) -> None:
    damaged.renew().status.unlink()
    damaged.run.status.write_text(json.dumps({"state": "done", "updated_at": 1e308}))
    _, out, _ = damaged.look(("list",), "")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert rows[OTHER].split()[1] == "done"
    assert f"{damaged.run.run_id}: {damaged.run.status} is damaged: updated_at is 1e+308, which is no time." in out


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
