"""A real cluster of two nodes on this machine: who may enter, where it listens, what a job finds there, how it ends."""

from __future__ import annotations

import fcntl
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.on_ray.sockets import LOOPBACK_HEX, listening_hosts
from transferlib.clusters import ClusterRecord, recorded_cluster
from transferlib.on_ray import local_cluster, scratch
from transferlib.on_ray.cluster_state import alive_nodes, read_state
from transferlib.on_ray.local_cluster import MARKER, start_cluster, stop_cluster
from transferlib.on_ray.node_shares import NodeShare
from transferlib.on_ray.processes import family, read_process
from transferlib.on_ray.session import RAY_ENVIRONMENT

pytestmark = pytest.mark.ray
SHARES = [NodeShare(f"node-{index}", cpus, (), 1 << 30, 100 << 20) for index, cpus in ((1, 2), (2, 1))]
"""127.0.0.1 in /proc/net/tcp and tcp6."""
LOOK = """
import json, os, sys, ray, transferlib
ray.init(log_to_driver=False)
nodes = {node["NodeName"]: node["Resources"] for node in ray.nodes()}

@ray.remote(num_cpus=1, resources={"node-2": 1})
def where():
    return ray.get_runtime_context().get_node_id() != here

here = ray.get_runtime_context().get_node_id()
print("FOUND", json.dumps({"python": sys.prefix, "nodes": nodes, "is_elsewhere": ray.get(where.remote()),
                           "environ": dict(os.environ)}))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterRecord]:
    """Run one cluster for the tests of this file, started with misleading variables around."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_ADDRESS", "192.0.2.99:6379")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        record = start_cluster(SHARES, local_cluster._free_port())
        yield record
        if recorded_cluster() is not None:
            stop_cluster(record)


def _ask(record: ClusterRecord, path: str, body: Any = None, token: str | None = None) -> Any:
    """Ask the head with a token; None: the cluster's own; empty: none."""
    token = Path(record.token_path).read_text() if token is None else token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    raw = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(record.address + path, raw, {**headers, "Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
        return json.load(answer)


def _wait_for(condition: Callable[[], Any], timeout_s: float = 30) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


@pytest.mark.parametrize("path", ["/api/version", "/api/jobs/", "/api/v0/nodes", "/nodes?view=summary"])
@pytest.mark.parametrize(("token", "code"), [("", 401), ("0" * 64, 403)])
def test_nobody_enters_without_the_token(cluster: ClusterRecord, path: str, token: str, code: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        _ask(cluster, path, token=token)
    refused.value.close()
    assert refused.value.code == code


def test_only_this_user_reads_the_token_and_the_logs(cluster: ClusterRecord) -> None:
    assert Path(cluster.token_path).stat().st_mode & 0o777 == 0o600
    assert Path(cluster.temp_dir).stat().st_mode & 0o777 == 0o700


def test_no_job_that_starts_takes_the_folder_of_a_living_cluster(cluster: ClusterRecord) -> None:
    folder = Path(cluster.temp_dir)
    with open(folder / scratch.LOCK) as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    scratch._remove_dead(folder)
    assert Path(cluster.token_path).exists()
    assert alive_nodes(cluster)


def test_all_nodes_are_alive_when_the_start_returns(cluster: ClusterRecord) -> None:
    state = read_state(cluster)
    assert (state.state, state.problem, state.jobs) == ("running", "", ())
    assert [(node.name, node.is_alive, node.cpus) for node in state.nodes] == [("node-1", True, 2), ("node-2", True, 1)]
    assert recorded_cluster() == cluster


def test_a_job_finds_this_python_all_nodes_and_only_their_settings(cluster: ClusterRecord, tmp_path: Path) -> None:
    script = tmp_path / "look.py"
    script.write_text(LOOK)
    job = _ask(cluster, "/api/jobs/", {"entrypoint": f"exec python {script}"})["submission_id"]
    _wait_for(lambda: _ask(cluster, f"/api/jobs/{job}")["status"] in ("SUCCEEDED", "FAILED"))
    log = _ask(cluster, f"/api/jobs/{job}/logs")["logs"]
    assert "FOUND" in log, log
    found = json.loads(log.partition("FOUND ")[2].splitlines()[0])
    assert found["python"] == sys.prefix
    assert found["is_elsewhere"]
    assert {name: (node["CPU"], node[name]) for name, node in found["nodes"].items()} == {
        "node-1": (2, 1),
        "node-2": (1, 1),
    }
    assert all(node["object_store_memory"] == 100 << 20 for node in found["nodes"].values())
    assert found["environ"].items() >= RAY_ENVIRONMENT.items()
    assert found["environ"]["RAY_ADDRESS"] == cluster.gcs_address
    assert found["environ"]["TMPDIR"] == f"{cluster.temp_dir}/tmp"


def test_everything_listens_on_loopback_only(cluster: ClusterRecord) -> None:
    hosts = listening_hosts(family(cluster.node_pids, f"{MARKER}={cluster.temp_dir}"))
    assert len(hosts) > 10
    assert set(hosts) <= LOOPBACK_HEX


def test_the_end_takes_everything_along_a_running_job_too(cluster: ClusterRecord, tmp_path: Path) -> None:
    said = tmp_path / "pid"
    sleep = f"import os, time; open('{said}', 'w').write(str(os.getpid())); time.sleep(600)"
    job = _ask(cluster, "/api/jobs/", {"entrypoint": f'exec python -c "{sleep}"'})["submission_id"]
    driver = read_process(int(_wait_for(lambda: said.exists() and said.read_text())))
    assert driver is not None
    assert read_state(cluster).jobs == (job,)
    everyone = family(cluster.node_pids, f"{MARKER}={cluster.temp_dir}")
    assert driver in everyone
    stop_cluster(cluster)
    assert [process for process in everyone if process.is_alive] == []
    assert alive_nodes(cluster) is None
    assert not Path(cluster.temp_dir).exists()
    assert recorded_cluster() is None
