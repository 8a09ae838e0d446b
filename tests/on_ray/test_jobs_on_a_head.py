"""The client of the Jobs API against a real head: one job an id, logs, time to stop in, and the probe."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from transferlib.addresses import ClusterAddress
from transferlib.clusters import ClusterRecord
from transferlib.errors import ClusterUnreachableError, UsageError
from transferlib.on_ray import local_cluster
from transferlib.on_ray.head_http import ConnectionLostError, HeadHttp
from transferlib.on_ray.jobs import JobsClient, JobState
from transferlib.on_ray.local_cluster import start_cluster, stop_cluster
from transferlib.on_ray.node_shares import NodeShare
from transferlib.on_ray.probe import PREFIX, ProbeRequest, probe_cluster

pytestmark = pytest.mark.ray

SCRIPT = """
import pathlib, signal, sys, time

def leave_slowly(*_):
    print("asked", flush=True)
    time.sleep(4)  # longer than Ray's own grace of 3 s
    print("saved", flush=True)
    sys.exit(5)

signal.signal(signal.SIGTERM, leave_slowly)
with open(sys.argv[1], "a") as starts:
    starts.write("x")
for number in range(int(sys.argv[2])):
    print("line", number, flush=True)
while len(sys.argv) > 3 and not pathlib.Path(sys.argv[3]).exists():
    time.sleep(0.05)
sys.exit(0 if len(sys.argv) > 3 else 7)
"""
IDS = (f"job-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterRecord]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            patch.delenv(name, raising=False)
        # Ray's own client would go where this says, whatever address it is given.
        patch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
        record = start_cluster([NodeShare("node-1", 2, (), 2 << 30, 100 << 20)], local_cluster._free_port())
        try:
            yield record
        finally:
            stop_cluster(record)


@pytest.fixture
def client(cluster: ClusterRecord) -> JobsClient:
    return JobsClient(ClusterAddress(cluster.address, "--address", Path(cluster.token_path)))


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    return folder


def send(client: JobsClient, job: str, scripts: Path, *words: object, grace_s: int = 20) -> bool:
    return client.submit(
        job,
        f"exec python script.py {scripts.parent / 'starts'} {' '.join(map(str, words))}",
        working_dir=scripts,
        env_vars={"RAY_JOB_STOP_WAIT_TIME_S": str(grace_s)},
        metadata={"run": job},
    )


def wait_for(condition: Callable[[], Any], timeout_s: float = 40) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def end_of(client: JobsClient, job: str) -> JobState:
    def ended() -> JobState | None:
        state = client.find(job)
        return state if state is not None and state.has_ended else None

    state = wait_for(ended)
    assert isinstance(state, JobState)
    return state


def test_an_id_is_one_job_however_often_it_is_sent(client: JobsClient, scripts: Path) -> None:
    job = next(IDS)
    assert send(client, job, scripts, 1) is True
    assert send(client, job, scripts, 1) is False
    state = end_of(client, job)
    assert (state.status, state.exit_code, state.metadata["run"]) == ("FAILED", 7, job)
    assert state.started_at is not None
    assert state.ended_at is not None
    assert state.started_at <= state.ended_at
    assert [each.submission_id for each in client.jobs()].count(job) == 1
    assert (scripts.parent / "starts").read_text() == "x"


def test_a_job_imports_the_package_that_travels_with_it(client: JobsClient, tmp_path: Path) -> None:
    files = {"scripts/job.py": "import cargo.deep; print(cargo.deep.WORD)", "cargo/deep.py": "WORD = 'here'"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    job = next(IDS)
    client.submit(
        job,
        "exec python job.py",
        working_dir=tmp_path / "scripts",
        py_modules=[tmp_path / "cargo"],
        env_vars={},
        metadata={},
    )
    assert end_of(client, job).status == "SUCCEEDED"
    assert "here" in client.logs(job).split()


def test_the_head_itself_refuses_an_id_that_it_has(client: JobsClient, scripts: Path) -> None:
    job = next(IDS)
    send(client, job, scripts, 1)
    again = client._send(job, "exec python script.py", scripts, (), {}, {})
    assert again is False


@pytest.mark.parametrize("has_arrived", [False, True])
def test_a_connection_lost_in_the_middle_starts_one_job(
    client: JobsClient, scripts: Path, monkeypatch: pytest.MonkeyPatch, has_arrived: bool
) -> None:
    ask, lost = HeadHttp.ask, []

    def lose_once(self: HeadHttp, method: str, path: str, **more: Any) -> Any:
        if method != "POST" or lost:
            return ask(self, method, path, **more)
        lost.append(path)
        if has_arrived:
            ask(self, method, path, **more)
        raise ConnectionLostError("cut")

    monkeypatch.setattr(HeadHttp, "ask", lose_once)
    job = next(IDS)
    assert send(client, job, scripts, 1) is True
    end_of(client, job)
    assert lost == ["/api/jobs/"]
    assert (scripts.parent / "starts").read_text() == "x"


def test_a_job_gets_the_time_to_stop_that_its_own_environment_asks_for(
    client: JobsClient, scripts: Path, tmp_path: Path
) -> None:
    job = next(IDS)
    send(client, job, scripts, 1, tmp_path / "never")
    wait_for(lambda: "line 0" in client.logs(job))
    assert client.stop(job) is True
    assert end_of(client, job).status == "STOPPED"
    assert client.logs(job).endswith("asked\nsaved\n")
    assert client.stop(job) is False


def test_an_unknown_job_is_told_apart_from_a_cluster_that_is_gone(client: JobsClient) -> None:
    assert client.find("never-sent") is None
    assert client.stop("never-sent") is False
    client.delete("never-sent")
    with pytest.raises(UsageError, match="does not know the job never-sent"):
        client.logs("never-sent")


def test_a_head_that_asks_for_a_token_is_known_to(client: JobsClient) -> None:
    assert client.asks_for_token() is True


def test_a_wrong_token_and_none_are_told_with_what_to_set(
    cluster: ClusterRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ClusterUnreachableError, match=r"wants a token.*RAY_AUTH_TOKEN_PATH"):
        JobsClient(ClusterAddress(cluster.address, "--address"))
    (tmp_path / "token").write_text("hush")
    with pytest.raises(ClusterUnreachableError, match="does not take the token from") as caught:
        JobsClient(ClusterAddress(cluster.address, "--address", tmp_path / "token"))
    assert "hush" not in str(caught.value)


def test_the_port_that_nodes_join_at_is_told_to_be_no_dashboard(cluster: ClusterRecord) -> None:
    with pytest.raises(ClusterUnreachableError, match="does not speak HTTP"):
        JobsClient(ClusterAddress(f"http://{cluster.gcs_address}", "RAY_ADDRESS"))


def test_a_probe_sees_a_node_as_it_is_and_ends_well(client: JobsClient, tmp_path: Path) -> None:
    (tmp_path / "trace").touch()
    request = ProbeRequest(data="/nowhere", storage=str(tmp_path), nonce_file="trace", cache_dir=str(tmp_path))
    facts = probe_cluster(client, request)
    (node,) = facts.nodes
    assert (node.is_head, node.cpus, facts.cpus, facts.max_cpus) == (True, 2, 2, None)
    assert (node.sees_data, node.sees_run, node.can_write, node.sees_weights) == (False, True, True, True)
    assert node.ray == facts.ray == client.ray_version
    assert node.python == facts.python
    assert node.torch
    assert node.memory_bytes >= node.shm_free_bytes > 0
    assert os.listdir(tmp_path) == ["trace"]
    assert {each.status for each in client.jobs() if each.submission_id.startswith(PREFIX)} == {"SUCCEEDED"}
