"""Jobs that share a cluster: each trial waits or trains, never half of both, and all end with what they have alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.on_ray.desk import TRIAL, desk_beside, wait_until
from transferlib.on_ray.node_shares import NodeShare
from transferlib.records import TrialResult
from transferlib.runs import RunFolder

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]


def result_of(run: RunFolder, trial_id: str = TRIAL) -> TrialResult:
    result = run.trial(trial_id).read_result()
    assert result is not None
    return result


def node(cpus: int, name: str = "node-1") -> NodeShare:
    return NodeShare(name, cpus, (), 3 << 30, 300 << 20)


@pytest.mark.parametrize(("cpus", "num_jobs"), [(2, 2), (4, 3), (8, 2)])
def test_jobs_beside_each_other_end_with_what_they_have_alone(tmp_path: Path, cpus: int, num_jobs: int) -> None:
    with desk_beside([node(cpus)], tmp_path) as desk:
        options = ("--seeds", "2", "--lr-candidates", "2")
        runs = [desk.detach(*options) for _ in range(num_jobs)]
        wait_until(lambda: all(desk.state(run)["state"] in ("done", "failed") for run in runs), timeout_s=240)
        assert [desk.state(run)["state"] for run in runs] == ["done"] * num_jobs
        alone = desk.detach(*options)
        wait_until(lambda: desk.state(alone)["state"] in ("done", "failed"), timeout_s=120)
    for trial in ("resnet18-full-s0-c0", "resnet18-full-s1-c1"):
        assert {result_of(run, trial).weights_sha256 for run in runs} == {result_of(alone, trial).weights_sha256}
