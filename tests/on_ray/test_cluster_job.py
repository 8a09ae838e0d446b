"""The same experiment as a job on a real cluster of two nodes: sent, followed, stopped, resumed, on disk and in S3."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.on_ray.desk import SUBMIT, TRIAL, Desk, desk_beside, wait_until
from tests.on_ray.jobs import MACHINE, make_run, num_epochs, process_ids, run_to_end
from tests.storage.s3 import S3Server
from transferlib.on_ray.mirroring import node_folder
from transferlib.on_ray.node_shares import NodeShare
from transferlib.on_ray.scratch import TEMPORARY
from transferlib.records import TrialResult
from transferlib.runs import RunFolder, read_json
from transferlib.spec import JobSpec
from transferlib.storage.layout import list_objects, trial_log
from transferlib.storage.locations import open_location

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]

SHARES = [NodeShare(f"node-{index}", cpus, (), 2 << 30, 200 << 20) for index, cpus in ((1, 2), (2, 1))]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, s3_process: S3Server) -> Iterator[Desk]:
    # The store first: the cluster inherits how to reach it.
    with desk_beside(SHARES, tmp_path_factory.mktemp("desk")) as desk:
        yield desk


def result_of(run: RunFolder, trial_id: str = TRIAL) -> TrialResult:
    result = run.trial(trial_id).read_result()
    assert result is not None
    return result


@pytest.fixture(scope="module")
def here(desk: Desk) -> TrialResult:
    """Return the result of the same experiment on this machine alone."""
    run = make_run(desk.folder / "here", desk.data, desk.folder / "here-cache", machine=MACHINE, training={"epochs": 3})
    assert run_to_end(run, desk.folder) == 0
    return result_of(run)


@pytest.fixture(scope="module")
def done(desk: Desk) -> tuple[RunFolder, subprocess.CompletedProcess[str]]:
    process = desk.submit(*desk.compare())
    (run,) = (desk.folder / "runs").iterdir()
    return RunFolder(run), process


def test_compare_on_a_cluster_gives_the_same_weights_as_here(
    done: tuple[RunFolder, subprocess.CompletedProcess[str]], here: TrialResult
) -> None:
    run, process = done
    assert "submit cluster up" in process.stderr  # it says why it went there
    assert "2 nodes" in process.stderr or "1 node" in process.stderr
    assert "resnet18-full" in process.stdout
    assert result_of(run).weights_sha256 == here.weights_sha256


def test_ray_knows_the_job_by_our_id_with_its_arms(
    desk: Desk, done: tuple[RunFolder, subprocess.CompletedProcess[str]]
) -> None:
    run, _ = done
    state = desk.client.find(run.run_id)
    assert state is not None
    assert state.metadata["arms"] == "resnet18-full"
    assert state.metadata["run"] == run.run_id
    job = next(job for job in _raw_jobs(desk) if job["submission_id"] == run.run_id)
    assert job["entrypoint"] == f"exec python compare.py {run.run_id}"


def test_no_secret_is_in_the_job_the_spec_the_log_or_the_report(
    desk: Desk, done: tuple[RunFolder, subprocess.CompletedProcess[str]]
) -> None:
    run, process = done
    token = Path(desk.record.token_path).read_text()
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY", token)
    texts = [json.dumps(_raw_jobs(desk)), process.stdout, process.stderr]
    texts += [path.read_text(errors="replace") for path in run.path.rglob("*") if path.is_file()]
    assert not [text[:80] for text in texts if token in text or secret in text]


def test_a_trial_stands_under_its_name_in_rays_task_list(
    desk: Desk, done: tuple[RunFolder, subprocess.CompletedProcess[str]]
) -> None:
    answer = desk.client._http.ask("GET", "/api/v0/tasks?detail=1&limit=2000")
    assert TRIAL in {task["name"] for task in answer.json()["data"]["result"]["result"]}


def test_every_verb_answers_about_a_job_of_the_head(
    desk: Desk, done: tuple[RunFolder, subprocess.CompletedProcess[str]]
) -> None:
    run, _ = done
    assert f"{run.run_id}: done, exit code 0" in desk.submit("status", run.run_id).stdout
    assert desk.state(run)["ray"]["status"] == "SUCCEEDED"
    assert run.run_id in desk.submit("list").stdout
    assert "running: 1 trial to train" in desk.submit("logs", "-f", run.run_id).stdout
    lines = [
        json.loads(line) for line in desk.submit("logs", run.run_id, "--trial", TRIAL, "--json").stdout.splitlines()
    ]
    assert lines[-1]["log"] == TRIAL
    assert "The trial is done." in lines[-1]["line"]
    assert desk.submit("wait", run.run_id[:17]).returncode == 0
    assert str(run.model.relative_to(desk.folder)) in desk.submit("result", run.run_id).stdout
    run.report.unlink()
    assert json.loads(desk.submit("report", run.run_id, "--json").stdout)["report"] == str(run.report)
    assert run.report.exists()
    checks = json.loads(desk.submit("doctor", "--data", str(desk.data), "--json").stdout)["checks"]
    assert {check["state"] for check in checks} <= {"ok", "warning"}
    assert "cluster: token" in {check["name"] for check in checks}
    assert "is not running: it is done" in desk.submit("stop", run.run_id, code=2).stderr


def test_a_run_stopped_on_the_cluster_goes_on_on_this_machine(desk: Desk, here: TrialResult) -> None:
    run = desk.detach()
    wait_until(lambda: num_epochs(run, TRIAL) >= 1)
    desk.submit("stop", run.run_id, "--wait")
    assert "is done already" not in desk.submit("compare", "--resume", run.run_id, "--address", "local").stderr
    assert desk.state(run)["ray"] is None
    assert result_of(run).weights_sha256 == here.weights_sha256


def test_stop_keeps_every_step_and_resume_ends_in_the_same_weights(desk: Desk, here: TrialResult) -> None:
    run = desk.detach()
    wait_until(lambda: run.trial(TRIAL).progress.exists() and '"running"' in run.trial(TRIAL).progress.read_text())
    desk.submit("stop", run.run_id, "--wait")
    stopped = desk.state(run)
    assert (stopped["state"], stopped["exit_code"]) == ("stopped", 5)
    assert desk.submit("wait", run.run_id, code=5)
    desk.submit("compare", "--resume", run.run_id)
    assert desk.state(run)["ray"]["submission_id"] == f"{run.run_id}-r2"
    assert result_of(run).weights_sha256 == here.weights_sha256


def test_ctrl_c_leaves_the_job_and_a_second_submit_finds_it(desk: Desk) -> None:
    before = desk.runs()
    process = subprocess.Popen(
        [SUBMIT, *desk.compare(epochs=200)],
        cwd=desk.folder,
        env=desk.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = RunFolder(wait_until(lambda: desk.runs() - before).pop())
    wait_until(lambda: (read_json(run.status) or {}).get("state") == "running")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"submit logs -f {run.run_id}" in said
    assert f"submit stop {run.run_id}" in said
    assert desk.state(run)["state"] == "running"
    jobs = len(_raw_jobs(desk))
    follower = subprocess.Popen(
        [SUBMIT, "compare", "--resume", run.run_id],
        cwd=desk.folder,
        env=desk.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert follower.stderr is not None
    wait_until(lambda: "still running" in follower.stderr.readline())  # type: ignore[union-attr]
    desk.submit("stop", run.run_id)
    follower.communicate(timeout=60)
    assert follower.returncode == 5
    assert len(_raw_jobs(desk)) == jobs
    assert re.search("running: 1 trial to train$", desk.submit("logs", run.run_id).stdout, re.MULTILINE)


def test_more_gpus_than_the_cluster_has_are_refused_before_anything_is_sent(desk: Desk) -> None:
    before = desk.runs()
    said = desk.submit(*desk.compare("--gpus", "4"), code=2).stderr
    assert f"--gpus 4: the cluster at {desk.record.address} has 0." in said
    assert desk.runs() == before


def test_a_cluster_that_does_not_answer_is_exit_3(desk: Desk) -> None:
    said = desk.submit(*desk.compare("--address", "http://127.0.0.1:9"), code=3).stderr
    assert "http://127.0.0.1:9" in said


def test_a_run_can_live_in_another_folder_that_the_cluster_sees(desk: Desk, here: TrialResult) -> None:
    run = desk.detach("--storage", "shared/runs")  # relative to where the user sits
    rows = {row["id"]: row for row in json.loads(desk.submit("list", "--json").stdout)}
    assert (rows[run.run_id]["ray"], rows[run.run_id]["exit_code"]) in (("RUNNING", None), ("PENDING", None))
    desk.submit("wait", run.run_id)
    there = RunFolder(desk.folder / "shared/runs" / run.run_id)
    assert there.trial(TRIAL).best.exists()
    assert result_of(run).weights_sha256 == result_of(there).weights_sha256 == here.weights_sha256
    assert run.report.read_bytes() == there.report.read_bytes()


def test_a_run_can_live_in_an_object_store(desk: Desk, here: TrialResult, s3_process: S3Server) -> None:
    storage = f"{s3_process.make_bucket()}/runs"
    run = desk.detach("--storage", storage)
    desk.submit("wait", run.run_id)
    answer = json.loads(desk.submit("result", run.run_id, "--json").stdout)
    assert answer["leaderboard"]["arms"][0]["arm"] == "resnet18-full"
    assert result_of(run).weights_sha256 == here.weights_sha256
    assert run.report.exists()
    assert not run.trial(TRIAL).best.exists()  # large files stay in the store
    assert f"{storage}/{run.run_id}/{run.MODEL}" in desk.submit("result", run.run_id).stdout
    assert "running: 1 trial to train" in desk.submit("logs", run.run_id).stdout
    assert "The trial is done." in desk.submit("logs", run.run_id, "--trial", TRIAL).stdout
    run.report.unlink()
    desk.submit("report", run.run_id)
    assert run.report.exists()
    assert JobSpec.load(run.spec).verb == "compare"


def test_a_run_in_an_object_store_is_stopped_and_resumed(desk: Desk, here: TrialResult, s3_process: S3Server) -> None:
    storage = f"{s3_process.make_bucket()}/runs"
    run = desk.detach("--storage", storage)
    wait_until(lambda: desk.state(run)["trials"].get("running"))
    desk.submit("stop", run.run_id, "--wait")
    assert desk.state(run)["state"] == "stopped"
    desk.submit("compare", "--resume", run.run_id)
    assert result_of(run).weights_sha256 == here.weights_sha256


@pytest.mark.timeout(900)
def test_ddp_over_two_nodes_killed_in_the_middle_goes_on_from_the_store(
    desk: Desk, s3_process: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(Path(desk.record.temp_dir) / TEMPORARY))  # the nodes' own
    storage = f"{s3_process.make_bucket()}/runs"
    options = ("--storage", storage, "--workers-per-trial", "2", "--lr-candidates", "2")
    undisturbed = desk.detach(*options)
    desk.submit("wait", undisturbed.run_id)
    run = desk.detach(*options)
    there = node_folder(run.run_id)
    wait_until(lambda: num_epochs(there, TRIAL) >= 1, timeout_s=240)
    os.kill(process_ids(there, TRIAL)[-1], signal.SIGKILL)
    assert there.trial(TRIAL).read_result() is None, "killed in the middle"
    desk.submit("wait", run.run_id)
    assert not there.path.exists(), "a run that is done leaves its node"
    stored = open_location(storage).child(run.run_id)
    assert len(re.findall(r"in process \d+", stored.read(trial_log(TRIAL)).decode())) == 2
    for trial_id in (TRIAL, TRIAL.replace("c0", "c1")):
        assert result_of(run, trial_id).weights_sha256 == result_of(undisturbed, trial_id).weights_sha256
    kept = list_objects(stored, "trials")
    (chosen,) = (name.split("/")[1] for name in kept if name.endswith("predictions-test.parquet"))
    models = [name for name in kept if name.endswith("best.safetensors")]
    assert models == [f"trials/{chosen}/best.safetensors"], "models that were not chosen do not stay in the store"
    assert stored.read(RunFolder.MODEL) == stored.read(models[0]), "the model handed over is in the store"


def _raw_jobs(desk: Desk) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = desk.client._http.ask("GET", "/api/jobs/").json()
    return jobs
