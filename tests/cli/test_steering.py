"""status, logs, wait, stop and result of runs on this machine, with a job that only plays."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Answer
from tests.telemetry.run_folders import begin_run, end
from transferlib.cli.outcome import read_leaderboard
from transferlib.cli.runs_table import find_runs
from transferlib.errors import RunFolderError
from transferlib.runs import RunFolder, read_json

SMALL = ("compare", "--data", "photos", "--arch", "resnet18", "--seeds", "1", "--lr-candidates", "1", "--epochs", "2")
Call = Callable[..., Answer]


def detach(call: Call, job: str) -> RunFolder:
    """Start a job that goes on by itself, and return its run."""
    answer = call(*SMALL, "--detach", job=job)
    assert answer.code == 0, answer.err
    return RunFolder(Path("runs").absolute() / answer.out.strip())


def test_detach_prints_the_id_and_how_to_follow_and_stop(call: Call) -> None:
    answer = call(*SMALL, "-d", job="endless")
    run_id = answer.out.strip()
    assert answer.code == 0
    assert f"submit logs -f {run_id}" in answer.err
    assert f"submit stop {run_id}" in answer.err
    assert call("stop", "@last", "--wait").code == 0


def test_the_id_goes_into_a_file_for_scripts(call: Call) -> None:
    answer = call(*SMALL, "-d", "--id-file", "id", job="done")
    assert Path("id").read_text() == answer.out
    refused = call(*SMALL, "-d", "--id-file", "nowhere/id", job="done")
    assert refused.code == 2
    assert "--id-file nowhere/id cannot be written" in refused.err
    assert "--resume" in refused.err


def test_a_detached_job_says_so_as_json(call: Call) -> None:
    answer = call(*SMALL, "-d", "--json", job="done")
    said = json.loads(answer.out)
    assert (said["state"], said["exit_code"]) == ("preparing", None)
    assert call("wait", said["id"]).code == 0


def test_a_stopped_job_is_not_exit_0(call: Call) -> None:
    run = detach(call, "endless")
    running = json.loads(call("status", run.run_id, "--json").out)
    assert running["exit_code"] is None
    stopped = call("stop", run.run_id[:17], "--wait", "--json")
    assert stopped.code == 0
    assert json.loads(stopped.out)["state"] == "stopped"
    assert call("wait", "@last").code == 5
    status = call("status", "@last")
    assert status.code == 0
    assert f"submit compare --resume {run.run_id}" in status.out


def test_result_of_a_stopped_run_points_to_the_best_model_and_the_report(call: Call) -> None:
    Path("runs").mkdir()
    run, plan = begin_run(Path("runs").absolute(), candidates=2)
    worse, better, failed = plan.trials[:3]
    for trial, score in ((worse, 0.5), (better, 0.75)):
        end(run, trial, val_accuracy=score, epochs=3)
        run.trial(trial.trial_id).best.touch()
    end(run, failed, "failed", reason="the loss is not finite")
    run.set_status("running")
    assert json.loads(call("status", run.run_id, "--json").out)["model"] is None
    run.set_status("stopped", exit_code=5, error="Stopped.")
    run.report.touch()
    answer = call("result", run.run_id)
    assert answer.code == 5
    assert f"Run {run.run_id} is stopped: it has no verdict yet." in answer.err
    model = run.trial(better.trial_id).best
    assert f"Model        {model.relative_to(Path.cwd())}" in answer.out
    assert f"{better.arm}, seed {better.seed}: best on validation of those finished." in answer.out
    assert f"Report       {run.report.relative_to(Path.cwd())}" in answer.out
    assert f"--resume {run.run_id}" in answer.out
    said = json.loads(call("result", run.run_id, "--json").out)
    assert (said["model"], said["leaderboard"]) == (str(model), None)


def test_status_says_which_epoch_each_trial_is_in(call: Call) -> None:
    run = detach(call, "endless")
    deadline = time.monotonic() + 20
    while not (training := json.loads(call("status", run.run_id, "--json").out)["training"]):
        assert time.monotonic() < deadline
    (place,) = training
    assert (place["num_epochs"], place["num_steps"]) == (2, 2)
    assert place["epoch"] <= 2
    answer = call("status", run.run_id)
    assert f"  training  {place['trial_id']}, epoch " in answer.out
    call("stop", run.run_id, "--wait")
    said = json.loads(call("status", run.run_id, "--json").out)
    assert said["training"] == []


def test_stopping_what_has_ended_is_told(call: Call) -> None:
    run = detach(call, "done")
    assert call("wait", run.run_id).code == 0
    answer = call("stop", run.run_id)
    assert answer.code == 2
    assert f"Run {run.run_id} is not running: it is done." in answer.err


def test_wait_gives_up_with_124(call: Call) -> None:
    run = detach(call, "endless")
    begun = time.monotonic()
    answer = call("wait", run.run_id, "--timeout", "0.2", "--json")
    assert answer.code == 124
    assert time.monotonic() - begun < 10
    assert json.loads(answer.out)["exit_code"] is None
    call("stop", run.run_id, "--wait")


def test_wait_and_result_give_the_jobs_own_code(call: Call) -> None:
    run = detach(call, "failing")
    assert call("wait", run.run_id).code == 4
    answer = call("result", run.run_id, "--json")
    assert answer.code == 4
    said = json.loads(answer.out)
    assert said["leaderboard"]["verdict"]["sentences"] == ["A wins."]
    assert said["trials"] == {"done": 2, "failed": 1}
    assert "A wins." in call("result", run.run_id).out


def test_result_of_a_running_job_says_what_to_do(call: Call) -> None:
    run = detach(call, "endless")
    answer = call("result", run.run_id)
    assert answer.code == 2
    assert f"Run {run.run_id} has no result." in answer.err
    call("stop", run.run_id, "--wait")


def test_logs_follow_to_the_end_and_exit_with_the_jobs_code(call: Call) -> None:
    run = detach(call, "failing")
    answer = call("logs", "-f", run.run_id)
    assert answer.code == 4
    assert answer.out.count("a line that only the log shows") == 1
    assert "a line that only the log shows" in call("logs", run.run_id).out


def test_no_log_name_leads_out_of_the_run_folder(call: Call) -> None:
    run = detach(call, "done")
    call("wait", run.run_id)
    (run.path.parent / "secret.log").write_text("secret")
    answer = call("logs", run.run_id, "--trial", "../../secret")
    assert answer.code == 2
    assert "Unknown trial" in answer.err
    assert "secret" not in answer.out


def test_a_killed_job_is_lost_not_running(call: Call, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    run = detach(call, "dying")
    status = read_json(run.status)
    run.status.write_text(json.dumps({**status, "updated_at": time.time() - 3600}))
    said = json.loads(call("status", run.run_id, "--json").out)
    assert (said["state"], said["exit_code"], said["ray"]) == ("lost", 1, None)
    assert call("wait", run.run_id).code == 1


@pytest.mark.parametrize("verb", ["status", "logs", "wait", "stop", "result"])
def test_each_verb_names_the_newest_runs_when_one_is_not_found(call: Call, verb: str) -> None:
    run = detach(call, "done")
    call("wait", run.run_id)
    answer = call(verb, "20200101")
    assert answer.code == 2
    assert run.run_id in answer.err


def test_storage_without_a_cluster_is_refused(call: Call) -> None:
    answer = call(*SMALL, "--storage", "s3://bucket/runs")
    assert answer.code == 2
    assert "--address" in answer.err


def test_a_damaged_leaderboard_is_a_sentence_and_hides_no_other_run(tmp_path: Path) -> None:
    broken, other = (RunFolder.create(tmp_path, "compare") for _ in range(2))
    for run in (broken, other):
        run.spec.write_text("schema: 1\n")
        run.set_status("done", exit_code=0)
    broken.leaderboard("json").write_text("{broken")
    with pytest.raises(RunFolderError, match="is damaged"):
        read_leaderboard(broken)
    states = {row.id: row.state for row in find_runs(tmp_path)}
    assert states == {broken.run_id: "unreadable", other.run_id: "done"}
