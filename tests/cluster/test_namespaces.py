"""Nodes in namespaces: as apart as machines, and gone without a trace."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster.nodes import namespaced_cluster, why_no_namespaces

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces()),
]


def test_a_killed_node_is_missed_comes_back_and_leaves_nothing(tmp_path: Path) -> None:
    with namespaced_cluster(2, tmp_path, cpus=1) as cluster:
        worker = cluster.workers[0]
        assert {path.name for path in worker.root.iterdir()} >= {"r", "token"}  # its own /tmp
        worker.kill()
        cluster.wait_for_nodes({"node-1"})
        worker.start()
        cluster.wait_for_nodes({"node-1", "node-2"})
        namespaces = [node.namespace for node in cluster.nodes]
        base = worker.root.parent
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert [name for name in namespaces if name in left] == []
    assert not base.exists()
