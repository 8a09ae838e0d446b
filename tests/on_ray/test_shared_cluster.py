"""Jobs that share a cluster: each trial waits or trains, never half of both, and all end with what they have alone."""

from __future__ import annotations

import inspect
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.on_ray import gpus_that_are_none
from tests.on_ray.desk import IMAGES, TRIAL, desk_beside, wait_until
from tests.on_ray.jobs import MACHINE, make_run, num_epochs, run_to_end, write_images
from transferlib.on_ray.node_shares import NodeShare
from transferlib.runs import RunFolder, read_json

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

CANDIDATES = ("--lr-candidates", "2")
TRIALS = ("resnet18-full-s0-c0", "resnet18-full-s0-c1")


def node(cpus: int, name: str = "node-1", gpus: Sequence[str] = ()) -> NodeShare:
    return NodeShare(name, cpus, tuple(gpus), 3 << 30, 300 << 20)


def status_of(run: RunFolder) -> tuple[str, str]:
    status = read_json(run.status) or {}
    return status.get("state", ""), status.get("message", "")


def follow(runs: Sequence[RunFolder], timeout_s: float = 300) -> dict[str, list[str]]:
    """Wait until jobs have ended well; return what each said meanwhile, by run id."""
    said: dict[str, list[str]] = {run.run_id: [] for run in runs}
    deadline = time.monotonic() + timeout_s
    while True:
        now = {run.run_id: status_of(run) for run in runs}
        for run_id, (_, message) in now.items():
            if message not in said[run_id][-1:]:
                said[run_id].append(message)
        states = {state for state, _ in now.values()}
        assert "failed" not in states, now
        if states == {"done"}:
            return said
        assert time.monotonic() < deadline, now
        time.sleep(0.2)


def weights(run: RunFolder) -> list[str]:
    results = [run.trial(trial_id).read_result() for trial_id in TRIALS]
    return [result.weights_sha256 for result in results if result is not None]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the weights of the experiment where no other job is."""
    folder = tmp_path_factory.mktemp("alone")
    data = write_images(folder / "images", IMAGES)
    run = make_run(
        folder, data, folder / "cache", machine=MACHINE, training={"epochs": 3}, comparison={"lr_candidates": 2}
    )
    assert run_to_end(run, folder) == 0
    assert len(set(weights(run))) == 2
    return weights(run)


@pytest.mark.parametrize(("cpus", "num_jobs"), [(2, 2), (4, 3), (8, 2)])
def test_jobs_beside_each_other_end_with_what_they_have_alone(
    tmp_path: Path, alone: list[str], cpus: int, num_jobs: int
) -> None:
    with desk_beside([node(cpus)], tmp_path) as desk:
        runs = [desk.detach(*CANDIDATES) for _ in range(num_jobs)]
        said = follow(runs)
    assert [weights(run) for run in runs] == [alone] * num_jobs
    began = [read_json(run.trial(TRIALS[0]).progress)["started_at"] for run in runs]
    # Among the others it is who asks first: one that came later may have read its images sooner.
    assert began[0] == min(began), "first come, first served"
    later = "\n".join(message for run in runs[1:] for message in said[run.run_id])
    assert "waiting: needs " in later
    assert f"; run {runs[0].run_id} holds {cpus} of {cpus} CPUs" in later


@pytest.mark.parametrize(("cpus", "gpus", "num_jobs"), [(4, "0", 2), (8, "01", 3)])
def test_jobs_share_gpus_as_they_share_cpus(
    tmp_path: Path, alone: list[str], cpus: int, gpus: str, num_jobs: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(inspect.getsource(gpus_that_are_none))
    with desk_beside([node(cpus, gpus=gpus)], tmp_path, {"PYTHONPATH": _python_path(tmp_path)}) as desk:
        runs = [desk.detach(*CANDIDATES) for _ in range(num_jobs)]
        said = follow(runs)
    assert [weights(run) for run in runs] == [alone] * num_jobs
    later = "\n".join(message for run in runs[1:] for message in said[run.run_id])
    unit = "GPU" if len(gpus) == 1 else "GPUs"
    assert f"; run {runs[0].run_id} holds {len(gpus)} of {len(gpus)} {unit}" in later


def _python_path(first: Path) -> str:
    return os.pathsep.join(filter(None, (str(first), os.environ.get("PYTHONPATH", ""))))


def test_a_job_that_waits_says_so_and_ends_when_it_is_stopped(tmp_path: Path) -> None:
    with desk_beside([node(2)], tmp_path) as desk:
        first = desk.detach(epochs=500)
        wait_until(lambda: num_epochs(first, TRIAL) >= 1, timeout_s=120)
        second = desk.detach()
        wait_until(lambda: "waiting: needs" in status_of(second)[1], timeout_s=120)
        assert f"run {first.run_id} holds 2 of 2 CPUs" in desk.submit("status", second.run_id).stdout
        for run in (second, first):
            asked = time.monotonic()
            desk.submit("stop", run.run_id)
            wait_until(lambda run=run: status_of(run)[0] == "stopped", timeout_s=60)
            assert time.monotonic() - asked < 20, "most of it is the command's own start"


def test_a_node_lost_for_good_leaves_trials_on_the_others_and_a_word_about_what_has_no_room(tmp_path: Path) -> None:
    with desk_beside([node(2), node(2, "node-2")], tmp_path) as desk:
        group = desk.detach("--workers-per-trial", "2", epochs=500)
        wait_until(lambda: num_epochs(group, TRIAL) >= 1, timeout_s=180)
        os.kill(desk.record.node_pids[1], signal.SIGKILL)
        wait_until(lambda: "have no room for that" in status_of(group)[1], timeout_s=180)
        small = desk.detach("--cpus", "2")
        follow([small])  # the one that waits for a node in vain keeps nobody up
        asked = time.monotonic()
        desk.submit("stop", group.run_id)
        wait_until(lambda: status_of(group)[0] == "stopped", timeout_s=60)
        assert time.monotonic() - asked < 20
