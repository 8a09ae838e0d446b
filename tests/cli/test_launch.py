import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from transferlib.runs import RunFolder, file_sha256

SMALL = ("--data", "photos", "--arch", "resnet18", "--seeds", "1", "--lr-candidates", "2", "--epochs", "2")
Call = Callable[..., Any]


def only_run(work: Path) -> RunFolder:
    (run,) = (work / "runs").iterdir()
    return RunFolder(run)


def test_done_job_prints_result_on_stdout_and_talk_on_stderr(call: Call, work: Path) -> None:
    answer = call("compare", *SMALL)
    assert answer.code == 0
    table, verdict, files = answer.out.strip().split("\n\n")
    assert table.splitlines()[0].split()[:3] == ["arm", "val", "acc"]
    assert table.splitlines()[1].startswith("resnet18-feature_extraction    0.900     0.900  0.850 to 0.950")
    assert table.splitlines()[-1].startswith("* at the edge of the rates tried")
    assert verdict == "A wins."
    assert "report.html" in files
    assert "model/model.safetensors" in files
    assert "60 images, nothing wrong with them." in answer.err
    assert "resnet18-full-s0-c0  epoch 2/2  loss 0.500  val 0.700 (best 0.700)  100 images/s" in answer.err
    assert answer.err.count("  epoch ") == 3 * 2 * 2
    assert "only the log shows" not in answer.out + answer.err
    assert "only the log shows" in (only_run(work).log / "job.log").read_text()


def test_run_folder_holds_spec_and_plan_before_the_job_starts(call: Call, work: Path) -> None:
    call("compare", *SMALL, job="broken")
    run = only_run(work)
    assert "resnet18" in run.spec.read_text()
    assert len(json.loads(run.plan.read_text())["trials"]) == 6


def test_failed_trials_end_with_4_and_their_reason(call: Call) -> None:
    answer = call("compare", *SMALL, job="failing")
    assert answer.code == 4
    assert "resnet18-full-s0-c1 failed: the loss is not finite at epoch 2" in answer.err
    assert "A wins." in answer.out


def test_error_of_the_job_is_printed_as_it_is_with_its_exit_code(call: Call) -> None:
    answer = call("compare", *SMALL, job="broken")
    assert (answer.code, answer.out) == (2, "")
    assert "photos/ has a class without images." in answer.err.splitlines()


def test_job_that_dies_ends_with_1_and_its_last_lines_and_can_be_resumed(call: Call, work: Path) -> None:
    answer = call("compare", *SMALL, job="dying")
    assert answer.code == 1
    lines = answer.err.splitlines()
    assert lines.index("about to die") == lines.index("-" * 80) + 1
    assert f"Log: {only_run(work).log / 'job.log'}" in lines
    assert f"submit compare --resume {only_run(work).run_id}" in answer.out
    assert json.loads(only_run(work).status.read_text())["state"] == "failed"
    again = call("compare", "--resume", "@last")
    assert again.code == 0
    assert "A wins." in again.out


def test_resumed_run_that_is_done_only_prints_its_result(call: Call, work: Path) -> None:
    first = call("compare", *SMALL)
    again = call("compare", "--resume", only_run(work).run_id[:15], job="dying")
    assert (again.code, again.out) == (0, first.out)
    assert "is done already" in again.err


NEEDED = (
    *("predictions.parquet", "manifest.parquet", "choice.json", "leaderboard.json", "leaderboard.csv"),
    *("leaderboard.md", "report.html", "prepared.json", "augmentation.png", "model/model.safetensors"),
    *("trials/{}/result.json", "trials/{}/best.safetensors", "trials/{}/predictions-val.parquet"),
    "trials/{}/predictions-test.parquet",
)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_done_run_that_lacks_a_file_goes_on(how: str, call: Call, work: Path) -> None:
    first = call("compare", *SMALL)
    for name in NEEDED:
        path = only_run(work).path / name.format("resnet18-full-s0-c1")
        content = path.read_bytes()
        path.unlink() if how == "gone" else path.write_bytes(b"")
        again = call("compare", "--resume", "@last")
        assert (again.code, again.out) == (0, first.out), name
        assert "is done already" not in again.err, name
        assert f"\n  {path.relative_to(only_run(work).path)}\n" in again.err, name
        path.write_bytes(content)  # the playing job does not make each of them again
    assert "is done already" in call("compare", "--resume", "@last").err


def test_a_done_run_that_dropped_models_on_purpose_is_done(call: Call, work: Path) -> None:
    call("compare", *SMALL)
    (only_run(work).trial("resnet18-full-s0-c0").best).unlink()
    assert "is done already" in call("compare", "--resume", "@last", job="dying").err


def test_a_model_that_is_not_what_its_trial_wrote_is_made_again(call: Call, work: Path) -> None:
    call("compare", *SMALL)
    run = only_run(work)
    folder = run.trial("resnet18-full-s0-c1")
    result = {**json.loads(folder.result.read_text()), "files": {folder.best.name: file_sha256(folder.best)}}
    folder.result.write_text(json.dumps(result))
    run.choice.write_text(json.dumps({**json.loads(run.choice.read_text()), "model": folder.path.name}))
    again = call("compare", "--resume", run.run_id)
    assert "\n  model/model.safetensors\n" in again.err


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_result_whose_model_is_gone_says_so_and_how_to_get_it_back(what: str, call: Call, work: Path) -> None:
    call("compare", *SMALL)
    run = only_run(work)
    assert json.loads(call("result", "@last", "--json").out)["model"] == str(run.model)
    run.model.unlink() if what == "missing" else run.model.write_bytes(b"")
    answer = call("result", "@last")
    assert f"model.safetensors is {what}. `submit compare --resume {run.run_id}` makes it again." in answer.out
    plain = json.loads(call("result", "@last", "--json").out)
    assert plain["model"] is None
    assert what in plain["damaged"][0]


def test_run_is_resumed_by_its_own_verb_only(call: Call) -> None:
    call("compare", *SMALL, job="dying")
    answer = call("train", "--resume", "@last")
    assert answer.code == 2
    assert "Use: submit compare --resume" in answer.err


def test_run_that_is_being_written_is_not_resumed(call: Call, work: Path) -> None:
    call("compare", *SMALL, job="dying")
    with only_run(work).locked():
        answer = call("compare", "--resume", "@last")
    assert answer.code == 2
    assert "is being written by process" in answer.err


def test_run_planned_for_gpus_is_not_resumed_without_them(call: Call, work: Path) -> None:
    call("compare", *SMALL, job="dying")
    plan = json.loads(only_run(work).plan.read_text())
    only_run(work).plan.write_text(json.dumps({**plan, "use_gpu": True, "gpus": 2}))
    answer = call("compare", "--resume", "@last")
    assert answer.code == 2
    assert "was planned for 2 GPUs: this machine has 0" in answer.err


def test_report_is_written_anew(call: Call, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("compare", *SMALL)
    report = ModuleType("transferlib.report")
    report.write_report = lambda run: run.report.write_text("anew")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transferlib.report", report)
    answer = call("report", "@last")
    assert answer.code == 0
    assert answer.out == f"Wrote {only_run(work).report.relative_to(work)}\n"
    assert only_run(work).report.read_text() == "anew"


def test_resume_changed_is_left_as_a_mark_for_the_job(call: Call, work: Path) -> None:
    call("compare", *SMALL, job="dying")
    assert call("compare", "--resume", "@last", "--resume-changed").code == 0
    assert (only_run(work).path / "RESUME_CHANGED").exists()


def test_json_is_one_object_on_stdout(call: Call, work: Path) -> None:
    answer = json.loads(call("compare", *SMALL, "--json").out)
    assert (answer["id"], answer["state"], answer["exit_code"]) == (only_run(work).run_id, "done", 0)
    assert answer["leaderboard"]["verdict"]["sentences"] == ["A wins."]
    failed = call("compare", *SMALL, "--json", job="broken")
    assert json.loads(failed.out)["exit_code"] == failed.code == 2


def test_train_is_one_trial(call: Call, work: Path) -> None:
    answer = call("train", "--data", "photos", "--arch", "resnet18", "--epochs", "1")
    assert answer.code == 0
    assert only_run(work).run_id.split("-")[2] == "train"
    assert answer.err.count("  epoch ") == 1


def test_runs_are_listed_newest_first(call: Call) -> None:
    assert call("list").err == "No runs in runs.\n"
    call("compare", *SMALL)
    call("compare", *SMALL, job="dying")
    rows = json.loads(call("list", "--json").out)
    assert [(row["state"], row["exit_code"]) for row in rows] == [("failed", 1), ("done", 0)]
    head, *lines = call("list").out.splitlines()
    assert head.split()[:2] == ["run", "state"]
    assert [line.split()[1] for line in lines] == ["failed", "done"]


def test_runs_folder_that_cannot_be_made_is_told(call: Call) -> None:
    answer = call("compare", *SMALL, "--runs", "photos/ant/0.jpg/runs")
    assert answer.code == 2
    assert "a run folder cannot be made there" in answer.err


def test_full_disk_at_the_start_is_told_and_leaves_no_half_run(
    call: Call, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, data: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("transferlib.cli.launch.write_atomic", write)
    answer = call("compare", *SMALL)
    assert answer.code == 2
    assert "a run folder cannot be made there (No space left on device)" in answer.err
    assert "Traceback" not in answer.err
    assert not list((work / "runs").iterdir())


def test_run_that_cannot_be_written_is_not_resumed(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call("compare", *SMALL, job="dying")

    def locked(run: RunFolder) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(run.path))

    monkeypatch.setattr(RunFolder, "locked", locked)
    answer = call("compare", "--resume", "@last")
    assert answer.code == 2
    assert "cannot be written (Read-only file system), so it cannot go on." in answer.err


def test_commands_find_runs_where_the_spec_file_says(call: Call, work: Path) -> None:
    (work / "submit.yaml").write_text("output: {runs_dir: out}\n")
    dying = call("compare", *SMALL, job="dying")
    (run,) = (work / "out").iterdir()
    assert f"submit compare --resume {run.name}" in dying.out
    assert [row["id"] for row in json.loads(call("list", "--json").out)] == [run.name]
    assert call("compare", "--resume", "@last").code == 0
    assert call("list", "--runs", "runs").err == "No runs in runs.\n"
    elsewhere = call("compare", *SMALL, "--runs", "runs", job="dying")
    assert f"submit compare --resume runs/{only_run(work).run_id}" in elsewhere.out


def test_options_without_effect_are_told_before_the_job_starts(call: Call) -> None:
    answer = call("compare", *SMALL, "--last-stages", "2", "--strategy", "full", job="broken")
    assert "--last-stages 2 has no effect: it is of --strategy last_layers." in answer.err


def test_anything_but_linux_is_refused_in_one_sentence(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    answer = call("compare", "--data", "photos")
    assert answer.code == 2
    assert answer.err == "Error: transferlib runs on Linux, and this is darwin. Use a Linux machine or container.\n"
    assert call("compare", "--help").code == 0


def test_cache_is_listed_and_cleared(call: Call, work: Path) -> None:
    from PIL import Image

    from transferlib.data.cache import DecodedCache
    from transferlib.data.decode import Limits

    assert f"No decoded images in {work / 'cache/transferlib'}." in call("cache", "list").out
    Image.new("RGB", (40, 30)).save(work / "photo.png")
    DecodedCache(work / "cache/transferlib", 37, Limits(10_000, 10_000)).ingest([str(work / "photo.png")])
    assert call("cache", "list").out.splitlines()[1].split()[:2] == ["37", "px"]
    answer = call("cache", "clear", "--yes")
    assert answer.code == 0
    assert answer.out.startswith("1 decoded image, ")
    assert "No decoded images" in call("cache", "list").out
