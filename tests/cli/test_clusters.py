"""`submit cluster`, with a cluster that only plays."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from tests.cli.conftest import Answer
from transferlib.cli.clusters import cluster
from transferlib.cli.main import submit
from transferlib.clusters import FILE_NAME, ClusterRecord, forget_cluster, record_cluster, recorded_cluster, state_dir
from transferlib.on_ray import cluster_state, local_cluster
from transferlib.on_ray.cluster_state import ClusterState, NodeState
from transferlib.on_ray.node_shares import NodeShare
from transferlib.on_ray.processes import Process

RECORD = ClusterRecord("http://127.0.0.1:9999", "127.0.0.1:1", "/tmp/tl-x/token", "/tmp/tl-x", [11, 12], 0.0)
NODES = (NodeState("node-1", 11, True, 2, 0), NodeState("node-2", 12, True, 1, 0))
RUNNING = ClusterState("tl-x", "running", NODES)
READ_STATE, STOP_CLUSTER = cluster_state.read_state, local_cluster.stop_cluster
"""What the playing cluster replaces."""
Call = Callable[..., Answer]


@dataclass
class Played:
    """What the playing cluster was told, and how it does."""

    shares: list[NodeShare] = field(default_factory=list)
    port: int = 0
    stopped: int = 0
    state: ClusterState = RUNNING


@pytest.fixture(autouse=True)
def played(work: object, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    told = Played()

    def start(shares: Sequence[NodeShare], port: int) -> ClusterRecord:
        told.shares, told.port = list(shares), port
        record_cluster(RECORD)
        return RECORD

    def stop(record: ClusterRecord) -> None:
        told.stopped += 1
        forget_cluster()

    monkeypatch.setattr(local_cluster, "start_cluster", start)
    monkeypatch.setattr(local_cluster, "stop_cluster", stop)
    monkeypatch.setattr(cluster_state, "read_state", lambda record: told.state)
    monkeypatch.setitem(submit.commands, "cluster", cluster)
    return told


def test_up_says_where_it_is_how_to_log_in_and_how_long_it_is_used(call: Call, played: Played) -> None:
    answer = call("cluster", "up", "--nodes", "2", "--cpus-per-node", "3", "--port", "9999")
    assert answer.code == 0, answer.err
    assert [share.cpus for share in played.shares] == [3, 3]
    assert played.port == 9999
    assert "A cluster of 2 nodes is up on this machine, on loopback only." in answer.out
    assert "Address    http://127.0.0.1:9999" in answer.out
    assert "paste what `cat /tmp/tl-x/token` prints" in answer.out
    assert "`submit compare` and `submit train` run on it until: submit cluster down" in answer.out
    assert "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:9999 RAY_AUTH_MODE=token" in answer.out


def test_up_without_options_starts_one_node_on_ray_s_port(call: Call, played: Played) -> None:
    assert call("cluster", "up").code == 0
    assert (len(played.shares), played.port) == (1, 8265)
    assert played.shares[0].cpus >= 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--nodes", "0"), "0 is not in the range 1<=x<=32"),
        (("--cpus-per-node", "1"), "the head needs 2"),
        (("--gpus-per-node", "2"), "this machine shows 0"),
        (("--port", "80"), "80 is not in the range"),
    ],
)
def test_demands_that_cannot_be_met_are_usage_errors(
    call: Call, played: Played, words: tuple[str, ...], text: str
) -> None:
    answer = call("cluster", "up", *words)
    assert answer.code == 2
    assert text in answer.err
    assert played.shares == []


def test_status_without_a_cluster_says_how_to_start_one(call: Call) -> None:
    answer = call("cluster", "status")
    assert (answer.code, answer.out) == (0, "")
    assert "submit cluster up" in answer.err
    assert json.loads(call("cluster", "status", "--json").out) == {
        "id": None,
        "state": "none",
        "exit_code": None,
        "address": None,
        "nodes": [],
        "jobs": [],
    }


def test_status_shows_nodes_and_jobs(call: Call, played: Played) -> None:
    record_cluster(RECORD)
    played.state = ClusterState("tl-x", "running", NODES, ("20261125-014503-compare-3fa9",))
    answer = call("cluster", "status")
    assert "http://127.0.0.1:9999: running" in answer.out
    assert "node-2  alive" in answer.out
    assert "Jobs: 20261125-014503-compare-3fa9" in answer.out
    said = json.loads(call("cluster", "status", "--json").out)
    assert (said["id"], said["state"], said["exit_code"]) == ("tl-x", "running", None)
    assert said["nodes"][1] == {"name": "node-2", "pid": 12, "is_alive": True, "cpus": 1, "gpus": 0}
    assert said["jobs"] == ["20261125-014503-compare-3fa9"]
    assert played.stopped == 0


def test_status_of_a_damaged_cluster_says_what_to_do(call: Call, played: Played) -> None:
    record_cluster(RECORD)
    played.state = ClusterState("tl-x", "damaged", NODES, problem="Not alive: node-2.")
    answer = call("cluster", "status")
    assert "Not alive: node-2. End what is left of it: submit cluster down" in answer.out
    assert recorded_cluster() is not None


@pytest.mark.parametrize("verb", ["status", "down"])
def test_a_cluster_that_is_gone_is_told_and_cleared(call: Call, played: Played, verb: str) -> None:
    record_cluster(RECORD)
    played.state = ClusterState("tl-x", "gone", (), problem="None of its processes is left.")
    answer = call("cluster", verb)
    assert answer.code == 0
    assert "gone" in answer.out
    assert "cleared" in answer.out
    assert recorded_cluster() is None


def test_down_ends_the_cluster_and_is_content_without_one(call: Call, played: Played) -> None:
    record_cluster(RECORD)
    assert "Ended the cluster at http://127.0.0.1:9999 (2 nodes)." in call("cluster", "down").out
    answer = call("cluster", "down")
    assert (answer.code, played.stopped) == (0, 1)
    assert "No cluster of yours runs" in answer.err


def test_down_cuts_no_job_off_unless_forced(call: Call, played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transferlib.cli.clusters.ENDING_S", 0.1)
    record_cluster(RECORD)
    played.state = ClusterState("tl-x", "running", NODES, ("job-1",))
    answer = call("cluster", "down")
    assert answer.code == 2
    assert "1 job has not ended on http://127.0.0.1:9999: job-1." in answer.err
    assert played.stopped == 0
    assert call("cluster", "down", "--force").code == 0
    assert played.stopped == 1


def test_down_waits_for_a_job_that_is_ending(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    record_cluster(RECORD)
    seen = [ClusterState("tl-x", "running", NODES, jobs) for jobs in ((), ("job-1",), ("job-1",))]
    monkeypatch.setattr(cluster_state, "read_state", lambda record: seen.pop())
    monkeypatch.setattr(local_cluster, "stop_cluster", lambda record: None)
    assert call("cluster", "down").code == 0


def test_down_asks_for_force_where_nobody_can_say_whether_jobs_run(call: Call, played: Played) -> None:
    record_cluster(RECORD)
    played.state = ClusterState("tl-x", "damaged", NODES, None, "Its head does not answer.")
    answer = call("cluster", "down")
    assert (answer.code, played.stopped) == (2, 0)
    assert "the head at http://127.0.0.1:9999 does not answer" in answer.err
    assert "--force" in answer.err
    assert call("cluster", "down", "--force").code == 0
    assert played.stopped == 1


def test_status_does_not_say_that_no_job_runs_where_nobody_answers(call: Call, played: Played) -> None:
    record_cluster(RECORD)
    played.state = ClusterState("tl-x", "damaged", NODES, None, "Its head does not answer.")
    out = call("cluster", "status").out
    assert "End what is left of it: submit cluster down --force" in out
    assert "Jobs: not known" in out
    assert json.loads(call("cluster", "status", "--json").out)["jobs"] is None


def test_a_head_that_does_not_answer_leaves_its_jobs_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_state, "node_processes", lambda record: {11: Process(11, 1)})
    monkeypatch.setattr(cluster_state, "ask_cluster", lambda record, path: None)
    assert READ_STATE(RECORD).jobs is None


def test_down_leaves_a_cluster_alone_that_came_up_meanwhile(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(RECORD, temp_dir="/tmp/tl-y", token_path="/tmp/tl-y/token")
    record_cluster(RECORD)

    def read_slowly(record: ClusterRecord) -> ClusterState:
        record_cluster(other)
        return RUNNING

    monkeypatch.setattr(cluster_state, "read_state", read_slowly)
    monkeypatch.setattr(local_cluster, "stop_cluster", STOP_CLUSTER)
    assert call("cluster", "down").code == 0
    assert recorded_cluster() == other


@pytest.mark.parametrize("verb", ["status", "down"])
def test_a_damaged_record_is_an_error_and_not_no_cluster(call: Call, played: Played, verb: str) -> None:
    record_cluster(RECORD)
    (state_dir() / FILE_NAME).write_text("{")
    answer = call("cluster", verb)
    assert (answer.code, played.stopped) == (2, 0)
    assert "cluster.json is damaged" in answer.err
