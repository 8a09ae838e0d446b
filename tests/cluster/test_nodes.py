"""A comparison over three nodes as apart as machines: one is killed in the middle; the head is killed and returns."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes import NamespacedCluster, namespaced_cluster, why_no_namespaces
from tests.on_ray.desk import submit, wait_until
from tests.on_ray.jobs import num_epochs, write_images
from transferlib.records import TrialResult
from transferlib.runs import RunFolder

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces()),
]

TRIAL = "resnet18-full-s0-c0"
NAMES = {"node-1", "node-2", "node-3"}
OPTIONS = {
    "--arch": "resnet18",
    "--weights": "none",
    "--seeds": "1",
    "--lr-candidates": "1",
    "--image-size": "32",
    "--global-batch-size": "8",
    "--precision": "fp32",
    "--threads-per-worker": "1",
}


class Desk:
    """Where a user sits, outside of the nodes: sees the shared folder and the head's dashboard."""

    def __init__(self, cluster: NamespacedCluster, shared: Path) -> None:
        self.cluster = cluster
        self.shared = shared
        self.data = write_images(shared / "images", {"train": 45, "val": 6, "test": 6})
        self._environment = {
            **os.environ,
            "HOME": str(shared),
            "RAY_API_SERVER_ADDRESS": cluster.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(cluster.token_path),
        }

    def submit(self, *arguments: str, code: int = 0) -> str:
        return submit(self.shared, self._environment, *arguments, code=code).stdout

    def detach(self, *more: str) -> RunFolder:
        options = [word for option in OPTIONS.items() for word in option]
        run_id = self.submit("compare", "-d", "--data", str(self.data), *options, *more).strip()
        return RunFolder(self.shared / "runs" / run_id)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    shared = tmp_path_factory.mktemp("shared")
    with namespaced_cluster(3, shared, cpus=2) as cluster:
        yield Desk(cluster, shared)


def result_of(run: RunFolder, trial_id: str = TRIAL) -> TrialResult:
    result = run.trial(trial_id).read_result()
    assert result is not None
    return result


def host_of_rank(run: RunFolder, rank: int) -> str:
    """Return the address of the node that a rank trains on, as Ray Train logged it."""
    lines = [line for line in run.job_log.read_text().splitlines() if f"world_rank={rank}," in line]
    return lines[-1].partition("(ip=")[2].partition(",")[0]


@pytest.mark.timeout(600)
def test_a_killed_node_changes_no_number(desk: Desk) -> None:
    two_workers = ("--strategy", "full", "--workers-per-trial", "2", "--epochs", "4")
    undisturbed = desk.detach(*two_workers)
    assert "2 nodes" in json.loads(undisturbed.plan.read_text())["placement"]
    desk.submit("wait", undisturbed.run_id)
    run = desk.detach(*two_workers)
    wait_until(lambda: num_epochs(run, TRIAL) >= 1, timeout_s=120)
    hosts = {host_of_rank(run, rank) for rank in range(2)}
    assert len(hosts) == 2, "DDP runs over two nodes"
    victim = next(node for node in desk.cluster.workers if node.ip in hosts)
    victim.kill()
    assert run.trial(TRIAL).read_result() is None, "killed in the middle"
    desk.submit("wait", run.run_id)
    victim.start()
    desk.cluster.wait_for_nodes(NAMES)
    assert result_of(run).weights_sha256 == result_of(undisturbed).weights_sha256
    boards = [json.loads(one.leaderboard("json").read_text())["arms"][0] for one in (undisturbed, run)]
    assert boards[0]["accuracy"] == boards[1]["accuracy"]
    assert boards[0]["log_loss"] == boards[1]["log_loss"]


def test_a_killed_head_loses_nothing_finished(desk: Desk) -> None:
    run = desk.detach("--strategy", "full", "--strategy", "scratch", "--cpus", "2", "--epochs", "12")
    first = wait_until(lambda: next(iter(sorted(run.path.glob("trials/*/result.json"))), None), timeout_s=120)
    finished_at = first.stat().st_mtime_ns
    for node in desk.cluster.nodes:
        node.kill()
    assert not run.report.exists(), "killed in the middle"
    for node in desk.cluster.nodes:
        node.start()
    desk.cluster.wait_for_nodes(NAMES)
    said = desk.submit("status", run.run_id)
    assert "knows nothing of it" in said
    desk.submit("compare", "--resume", run.run_id)
    assert first.stat().st_mtime_ns == finished_at, "a finished trial is not run again"
    assert run.report.exists()
    assert {json.loads(path.read_text())["state"] for path in run.path.glob("trials/*/result.json")} == {"done"}
