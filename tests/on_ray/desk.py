"""A user's desk beside a cluster on loopback: a folder, an environment that knows the cluster, images, and `submit`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.on_ray.jobs import write_images
from transferlib.addresses import ClusterAddress
from transferlib.clusters import ClusterRecord
from transferlib.on_ray import local_cluster
from transferlib.on_ray.jobs import JobsClient
from transferlib.on_ray.local_cluster import start_cluster, stop_cluster
from transferlib.on_ray.node_shares import NodeShare
from transferlib.runs import RunFolder

SUBMIT = str(Path(sys.executable).with_name("submit"))
IMAGES = {"train": 40, "val": 6, "test": 6}
"""Of each class."""
TRIAL = "resnet18-full-s0-c0"
OPTIONS = {
    "--arch": "resnet18",
    "--weights": "none",
    "--strategy": "full",
    "--seeds": "1",
    "--lr-candidates": "1",
    "--image-size": "32",
    "--global-batch-size": "8",
    "--precision": "fp32",
    "--threads-per-worker": "1",
    "--cache-dir": "cache",
}


def submit(
    folder: Path, environment: Mapping[str, str], *arguments: str, code: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run `submit` in a folder; None: whatever its exit code."""
    process = subprocess.run(
        [SUBMIT, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert code is None or process.returncode == code, process.stdout + process.stderr
    return process


@dataclass(frozen=True)
class Desk:
    """Where a user sits: a folder, an environment that knows the cluster, and images."""

    folder: Path
    environment: dict[str, str]
    record: ClusterRecord
    data: Path

    def submit(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        return submit(self.folder, self.environment, *arguments, code=code)

    def compare(self, *more: str, epochs: int = 3) -> tuple[str, ...]:
        options = [word for name, value in OPTIONS.items() if name not in more for word in (name, value)]
        return ("compare", "--data", str(self.data), *options, "--epochs", str(epochs), *more)

    def runs(self) -> set[Path]:
        return set((self.folder / "runs").glob("2*"))

    def detach(self, *more: str, epochs: int = 3) -> RunFolder:
        return RunFolder(self.folder / "runs" / self.submit(*self.compare("-d", *more, epochs=epochs)).stdout.strip())

    def state(self, run: RunFolder) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.submit("status", run.run_id, "--json").stdout)
        return answer

    @property
    def client(self) -> JobsClient:
        return JobsClient(ClusterAddress(self.record.address, "--address", Path(self.record.token_path)))


@contextmanager
def desk_beside(
    shares: Sequence[NodeShare], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Desk]:
    """Start a cluster and sit down beside it, for the length of a `with` block.

    Args:
        shares: Its nodes.
        folder: The desk's.
        environment: Variables of the cluster's processes and the desk's, beside those of this process.
    """
    data = write_images(folder / "images", IMAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setenv("HOME", str(folder))
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
            patch.delenv(name, raising=False)
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        record = start_cluster(shares, local_cluster._free_port())
        try:
            yield Desk(folder, dict(os.environ), record, data)
        finally:
            stop_cluster(record)


def wait_until(condition: Callable[[], Any], timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return value
