"""How far a cluster may grow: by its autoscaling config, by hand-computed cases, and asked of a real head."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from transferlib.addresses import ClusterAddress
from transferlib.on_ray import local_cluster
from transferlib.on_ray.autoscaling import find_config, most_allowed, read_most
from transferlib.on_ray.jobs import JobsClient
from transferlib.on_ray.local_cluster import start_cluster, stop_cluster
from transferlib.on_ray.node_shares import NodeShare
from transferlib.on_ray.probe import ProbeRequest, probe_cluster

TYPES: dict[str, Any] = {
    "head": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
    "gpu": {"resources": {"CPU": 4, "GPU": 4}, "node_config": {}, "min_workers": 0, "max_workers": 2},
}
CONFIG: dict[str, Any] = {"head_node_type": "head", "max_workers": 8, "available_node_types": TYPES}


def test_the_head_counts_once_and_each_worker_type_as_often_as_it_may() -> None:
    assert most_allowed(CONFIG) == {"CPU": 2 + 2 * 4, "GPU": 2 * 4}


def test_the_most_of_each_resource_is_had_from_the_types_that_have_most_of_it() -> None:
    wide = {"resources": {"CPU": 64}, "max_workers": 5}
    config = {**CONFIG, "max_workers": 3, "available_node_types": {**TYPES, "wide": wide}}
    assert most_allowed(config) == {"CPU": 2 + 3 * 64, "GPU": 2 * 4}


def test_a_type_without_a_limit_has_the_clusters() -> None:
    types = {"head": {"resources": {"CPU": 2, "GPU": 1}}, "gpu": {"resources": {"GPU": 4}}}
    assert most_allowed({**CONFIG, "available_node_types": types}) == {"CPU": 2, "GPU": 1 + 8 * 4}


def test_a_cluster_that_names_no_types_says_nothing() -> None:
    assert most_allowed({"max_workers": 3}) == {}


@pytest.mark.parametrize("text", ["", "[1, 2]", "{a: b: c}", "available_node_types: 3", "!!python/object:os.system {}"])
def test_a_file_that_is_no_config_says_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert not read_most(path)
    assert not read_most(tmp_path / "absent")


def test_the_config_is_that_of_the_monitor_of_this_cluster() -> None:
    def monitor(port: int, *config: str) -> list[str]:
        return ["python", "-u", "/ray/autoscaler/_private/monitor.py", f"--gcs-address=10.0.0.1:{port}", *config]

    lines = [
        ["grep", "--autoscaling-config=/wrong", "--gcs-address=10.0.0.1:1"],
        monitor(2, "--autoscaling-config=/other"),
        monitor(1, "--autoscaling-config=/mine"),
        monitor(3, "--autoscaling-config", "~/third"),
        monitor(4),
        [],
    ]
    assert find_config("10.0.0.1:1", iter(lines)) == Path("/mine")
    assert find_config("10.0.0.1:3", iter(lines)) == Path("~/third").expanduser()
    assert find_config("10.0.0.1:4", iter(lines)) is None


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobsClient]:
    """Start a head with Ray's first autoscaler, which would start further nodes on this machine."""
    config = {
        **CONFIG,
        "cluster_name": "growing",
        "provider": {"type": "fake_multinode", "head_node_id": "f" * 51 + "00000", "launch_multiple": True},
        "idle_timeout_minutes": 5,
        "upscaling_speed": 1.0,
        **{name: {} for name in ("auth", "file_mounts", "docker")},
        **{
            name: []
            for name in (
                "cluster_synced_files",
                "initialization_commands",
                *("setup_commands", "head_setup_commands", "worker_setup_commands"),
                *("head_start_ray_commands", "worker_start_ray_commands"),
            )
        },
    }
    path = tmp_path / "autoscaling.json"
    path.write_text(json.dumps(config))
    options, environment = local_cluster._options, local_cluster.node_environment
    monkeypatch.setattr(local_cluster, "_options", lambda *args: {**options(*args), "autoscaling_config": str(path)})
    monkeypatch.setattr(
        local_cluster, "node_environment", lambda *args: {**environment(*args), "RAY_FAKE_CLUSTER": "1"}
    )
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    record = start_cluster([NodeShare("node-1", 2, (), 1 << 30, 100 << 20)], local_cluster._free_port())
    try:
        yield JobsClient(ClusterAddress(record.address, "--address", Path(record.token_path)))
    finally:
        stop_cluster(record)


@pytest.mark.ray
@pytest.mark.slow
def test_a_head_tells_how_far_its_cluster_may_grow(head: JobsClient) -> None:
    facts = probe_cluster(head, ProbeRequest())
    assert (facts.max_cpus, facts.max_gpus) == (10, 8)
    assert facts.gpus == 0
