"""How a cluster's run stands for whoever looks from here: with Ray's word, without it, after a resume, back home."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.conftest import Answer
from transferlib.cli import run_view
from transferlib.cli.run_state import STALE_S, START_S, read_state
from transferlib.cli.run_view import RunView
from transferlib.errors import ClusterUnreachableError, RunFolderError, StorageError, TransferlibError
from transferlib.on_ray.jobs import JobState
from transferlib.runs import RunFolder
from transferlib.storage.client_mirror import ClientMirror
from transferlib.storage.driver_mirror import DriverMirror
from transferlib.storage.locations import Location, open_location
from transferlib.submissions import Submission, came_home

Call = Callable[..., Answer]
SMALL = ("compare", "--data", "photos", "--arch", "resnet18", "--seeds", "1", "--lr-candidates", "1", "--epochs", "2")


@dataclass
class Cluster:
    """Answer in a cluster's place."""

    status: str | None = "RUNNING"
    """None: it does not know the job."""
    is_away: bool = False
    stopped: list[str] = field(default_factory=list)
    after_find: Callable[[], object] = lambda: None

    def __call__(self, submission: Submission) -> Cluster:
        if self.is_away:
            raise ClusterUnreachableError("no answer")
        return self

    def find(self, submission_id: str) -> JobState | None:
        self.after_find()
        if self.status is None:
            return None
        code = {"SUCCEEDED": 0, "FAILED": 1}.get(self.status)
        return JobState(submission_id, self.status, "", code, None, None, {})

    def stop(self, submission_id: str) -> bool:
        self.stopped.append(submission_id)
        return True

    def logs(self, submission_id: str) -> str:
        return "what Ray has"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    answers = Cluster()
    monkeypatch.setattr(run_view, "client_for", answers)
    return answers


def sent(
    folder: Path, *, state: str = "running", storage: str | None = None, submitted_ago_s: float = 3600.0
) -> RunFolder:
    """Make a run whose job went to a cluster."""
    run = RunFolder(folder / "runs/20261125-014503-compare-3fa9")
    run.log.mkdir(parents=True)
    run.spec.write_text("schema: 1\n")
    run.set_status(state, exit_code=None if state == "running" else 5)
    Submission(run.run_id, "http://head:8265", storage, 1, time.time() - submitted_ago_s).save(run)
    return run


def age(run: RunFolder, seconds: float) -> None:
    """Make everything in a run's folder so old."""
    status = json.loads(run.status.read_text())
    run.status.write_text(json.dumps({**status, "updated_at": time.time() - seconds}))
    for path in run.path.rglob("*"):
        os.utime(path, (time.time() - seconds,) * 2)


@pytest.mark.parametrize(
    ("status", "state", "code"),
    [
        ("PENDING", "running", None),
        ("RUNNING", "running", None),
        ("STOPPED", "stopped", 5),
        ("FAILED", "lost", 1),
        ("SUCCEEDED", "lost", 1),
        (None, "lost", 1),
    ],
)
def test_rays_word_counts_where_the_job_has_not_said_how_it_ended(
    tmp_path: Path, cluster: Cluster, status: str | None, state: str, code: int | None
) -> None:
    cluster.status = status
    seen = RunView(sent(tmp_path)).look()
    assert (seen.state, seen.exit_code) == (state, code)


def test_a_job_that_ray_does_not_know_yet_is_not_lost(tmp_path: Path, cluster: Cluster) -> None:
    cluster.status = None
    assert RunView(sent(tmp_path, submitted_ago_s=START_S / 2)).look().state == "running"


def test_a_job_that_ends_while_it_is_looked_at_is_not_lost(tmp_path: Path, cluster: Cluster) -> None:
    run = sent(tmp_path)
    cluster.status = "SUCCEEDED"
    cluster.after_find = lambda: run.set_status("done", exit_code=0)
    seen = RunView(run).look()
    assert (seen.state, seen.exit_code, seen.is_certain) == ("done", 0, True)


def test_a_doubtful_end_must_last(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    run = sent(tmp_path)
    cluster.status = "SUCCEEDED"
    view = RunView(run)
    assert not view.is_over(view.look())
    monkeypatch.setattr(run_view, "SETTLE_S", 0.0)
    assert view.is_over(view.look())
    run.set_status("done", exit_code=0)
    assert RunView(run).is_over(view.look())


def test_a_run_whose_cluster_is_gone_is_lost_once_nothing_moves(tmp_path: Path, cluster: Cluster) -> None:
    run = sent(tmp_path, submitted_ago_s=10 * STALE_S)
    cluster.is_away = True
    view = RunView(run)
    assert view.look().state == "running"
    age(run, STALE_S + 60)
    seen = view.look()
    assert (seen.state, seen.exit_code) == ("lost", 1)
    assert "nothing has come from it for 10 minutes" in seen.message
    assert view.is_over(seen)
    (run.log / "job.log").write_text("a sign of life\n")
    assert view.look().state == "running"


def test_a_run_that_is_held_here_is_at_work_whatever_ray_says(tmp_path: Path, cluster: Cluster) -> None:
    run = sent(tmp_path)
    cluster.status = "STOPPED"
    with run.locked():
        assert RunView(run).look().state == "running"


def test_a_run_that_came_home_is_no_clusters_any_more(tmp_path: Path, cluster: Cluster) -> None:
    run = sent(tmp_path)
    came_home(run)
    assert Submission.load(run) is None
    cluster.is_away = True
    with run.locked():
        assert RunView(run).stop() == f"Asked run {run.run_id} to stop; checkpoints are kept."
    newest = Submission.newest(run)
    assert newest is not None
    assert newest.attempt == 1, "the next start on the cluster is attempt 2, which Ray does not know yet"


@pytest.fixture
def store(tmp_path: Path) -> Location:
    (tmp_path / "there/20261125-014503-compare-3fa9").mkdir(parents=True)
    return open_location(str(tmp_path / "there/20261125-014503-compare-3fa9"))


def test_after_a_resume_the_old_end_is_not_taken_for_the_new_one(
    tmp_path: Path, store: Location, cluster: Cluster
) -> None:
    run = sent(tmp_path, state="stopped", storage=str(tmp_path / "there"))
    ClientMirror(store, run).push_new_run()
    assert RunView(run).look().state == "stopped"
    run.set_status("preparing")  # as `--resume` does, before it is sent
    ClientMirror(store, run).push_new_run()
    cluster.status = "PENDING"
    assert RunView(run).look().state == "preparing"
    assert "asked run" in RunView(run).stop().lower()
    assert store.exists("STOP")


def test_the_jobs_log_and_a_trials_come_from_the_storage(tmp_path: Path, store: Location, cluster: Cluster) -> None:
    run = sent(tmp_path, storage=str(tmp_path / "there"))
    ClientMirror(store, run).push_new_run()
    store.write("log/job.log", b"one\n")
    view = RunView(run)
    view.look(also=["log/job.log", "log/not-yet.log"])
    assert run.job_log.read_text() == "one\n"
    store.write("log/job.log", b"one\ntwo\n")
    view.look(also=["log/job.log"])
    assert run.job_log.read_text() == "one\ntwo\n"


def test_a_storage_that_hiccups_is_told_and_waited_for(
    tmp_path: Path, store: Location, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sent(tmp_path, storage=str(tmp_path / "there"))
    ClientMirror(store, run).push_new_run()

    def away(*_: object) -> None:
        raise StorageError("away")

    with monkeypatch.context() as patch:
        patch.setattr(ClientMirror, "pull", away)
        patch.setattr(ClientMirror, "ask_to_stop", away)
        view = RunView(run)
        seen = view.look()
        assert (seen.state, view.is_over(seen)) == ("running", False)
        assert "The storage does not answer" in seen.note
        view.stop()
        assert cluster.stopped == [run.run_id], "Ray alone can stop it too"
        cluster.is_away = True
        with pytest.raises(TransferlibError, match="neither through its storage"):
            RunView(run).stop()
    assert RunView(run).look().note == ""


def test_a_start_that_the_storage_never_saw_is_an_error_that_list_survives(
    tmp_path: Path, store: Location, cluster: Cluster, call: Call
) -> None:
    run = sent(Path.cwd(), storage=str(tmp_path / "there"))
    with pytest.raises(RunFolderError, match="holds no run"):
        RunView(run).look()
    damaged = RunFolder(run.path.parent / "20261125-014504-compare-aaaa")
    damaged.path.mkdir()
    damaged.spec.write_text("schema: 1\n")
    damaged.job.write_text("{")
    rows = {row["id"]: row for row in json.loads(call("list", "--json").out)}
    assert rows[run.run_id]["state"] == "running"
    assert "holds no run" in rows[run.run_id]["message"]
    assert rows[damaged.run_id]["state"] == "unreadable"


def test_list_brings_every_run_up_to_date_though_the_cluster_is_away(
    tmp_path: Path, store: Location, cluster: Cluster, call: Call
) -> None:
    run = sent(Path.cwd(), storage=str(tmp_path / "there"))
    ClientMirror(store, run).push_new_run()
    with DriverMirror(store, RunFolder(tmp_path / "node" / run.run_id)) as mirror:
        (tmp_path / "node" / run.run_id / "log").mkdir(exist_ok=True)
        RunFolder(tmp_path / "node" / run.run_id).set_status("done", exit_code=0)
        mirror.flush()
    cluster.is_away = True
    (row,) = json.loads(call("list", "--json").out)
    assert (row["state"], row["exit_code"]) == ("done", 0)


@pytest.fixture
def stopped(call: Call) -> RunFolder:
    """Return a stopped run with all that a run has."""
    answer = call(*SMALL, "--detach", job="endless")
    assert answer.code == 0, answer.err
    run = RunFolder(Path("runs").absolute() / answer.out.strip())
    assert call("stop", run.run_id, "--wait").code == 0
    return run


def test_a_run_in_a_storage_does_not_go_on_here(
    tmp_path: Path, stopped: RunFolder, cluster: Cluster, call: Call
) -> None:
    storage = tmp_path / "there"
    (storage / stopped.run_id).mkdir(parents=True)
    Submission(stopped.run_id, "http://head:8265", str(storage), 1, time.time()).save(stopped)
    ClientMirror(open_location(str(storage / stopped.run_id)), stopped).push_new_run()
    answer = call("compare", "--resume", stopped.run_id, "--address", "local")
    assert answer.code == 2
    assert f"lies in {storage}" in answer.err


def test_a_clusters_run_goes_on_here_once_the_cluster_has_let_go_of_it(
    stopped: RunFolder, cluster: Cluster, call: Call
) -> None:
    Submission(stopped.run_id, "http://head:8265", None, 1, time.time()).save(stopped)
    resume = ("compare", "--resume", stopped.run_id, "--address", "local")
    stopped.set_status("running")
    answer = call(*resume)
    assert answer.code == 2
    assert f"is at work at http://head:8265. First: submit stop {stopped.run_id}" in answer.err
    stopped.set_status("stopped", exit_code=5)
    assert cluster.status == "RUNNING"  # Ray shows the process until it has gone
    assert call(*resume, job="done").code == 0
    assert Submission.load(stopped) is None
    assert call("wait", stopped.run_id).code == 0


def test_clocks_of_head_and_client_need_not_agree(tmp_path: Path) -> None:
    run = sent(tmp_path)
    status = json.loads(run.status.read_text())
    for hours in (-5, 5):
        run.status.write_text(json.dumps({**status, "updated_at": time.time() + 3600 * hours}))
        assert read_state(run, Submission.load(run), "RUNNING").state == "running"
        assert read_state(run, Submission.load(run), "unknown").state == "lost"
