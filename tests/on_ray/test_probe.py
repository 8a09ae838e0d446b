"""What the asking side makes of a cluster's answers to a probe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import pytest

import transferlib
from transferlib.addresses import ClusterAddress
from transferlib.errors import TransferlibError
from transferlib.on_ray import probe
from transferlib.on_ray.jobs import JobsClient, JobState
from transferlib.on_ray.package_hash import package_sha256
from transferlib.on_ray.probe import ProbeRequest, probe_cluster

OURS = {"verb": "probe"}


def probe_id(digit: str) -> str:
    return f"transferlib-probe-{digit * 12}"


class Head:
    """Be a head where a probe ends as it is told to."""

    address = ClusterAddress("http://head:8265", "--address")

    def __init__(self, log: str = "", status: str = "FAILED", others: tuple[JobState, ...] = ()) -> None:
        self.log, self.status, self.others = log, status, others
        self.deleted: list[str] = []
        self.stopped: list[str] = []

    def submit(self, job: str, *_: object, **__: object) -> bool:
        return True

    def find(self, job: str) -> JobState:
        return JobState(job, self.status)  # type: ignore[arg-type]

    def logs(self, job: str) -> str:
        return self.log

    def stop(self, job: str) -> bool:
        self.stopped.append(job)
        return True

    def jobs(self) -> list[JobState]:
        return list(self.others)

    def delete(self, job: str) -> None:
        self.deleted.append(job)


def ask(head: Head, timeout_s: float = 5) -> None:
    probe_cluster(cast(JobsClient, head), ProbeRequest(), timeout_s=timeout_s)


def test_a_head_whose_python_has_no_ray_is_told_what_to_put_right() -> None:
    for log in ("sh: 1: exec: python: not found", "ModuleNotFoundError: No module named 'ray'"):
        with pytest.raises(TransferlibError, match="first on PATH"):
            ask(Head(log))


def test_a_probe_that_fails_says_what_it_said() -> None:
    with pytest.raises(TransferlibError, match=r"http://head:8265 .* FAILED\. OSError: disk full"):
        ask(Head("Traceback:\nOSError: disk full\n"))


def test_a_probe_that_does_not_end_is_stopped_and_given_up() -> None:
    head = Head(status="PENDING")
    with pytest.raises(TransferlibError, match="has not ended in time"):
        ask(head, timeout_s=0)
    assert len(head.stopped) == 1


def test_probes_that_ended_long_ago_are_taken_off_the_list_and_nothing_else() -> None:
    now = time.time()
    old, fresh = now - 2 * probe.SETTLED_S, now - 1
    head = Head(
        others=(
            JobState(probe_id("a"), "SUCCEEDED", ended_at=old, metadata=OURS),
            JobState(probe_id("b"), "FAILED", ended_at=old, metadata=OURS),
            # Ray would bring this one back as failed.
            JobState(probe_id("c"), "SUCCEEDED", ended_at=fresh, metadata=OURS),
            JobState(probe_id("d"), "RUNNING", metadata=OURS),
            JobState(probe_id("e"), "SUCCEEDED", ended_at=old),
            JobState(probe_id("f"), "SUCCEEDED", ended_at=old, metadata={"verb": "compare"}),
            JobState("transferlib-probe-of-mine", "SUCCEEDED", ended_at=old, metadata=OURS),
            JobState("probe-a", "SUCCEEDED", ended_at=old, metadata=OURS),
            JobState("20261125-014503-compare-3fa9", "SUCCEEDED", ended_at=old),
        )
    )
    with pytest.raises(TransferlibError):
        ask(head)
    assert head.deleted == [probe_id("a"), probe_id("b")]


def test_a_probe_is_sent_under_a_name_that_the_next_one_sweeps() -> None:
    head = Head()
    with pytest.raises(TransferlibError):
        ask(head)
    (job,) = head.stopped
    assert probe.PROBE_ID.fullmatch(job)


def test_the_package_is_known_by_its_modules_whatever_else_lies_there(tmp_path: Path) -> None:
    package = Path(transferlib.__file__).parent
    assert package_sha256(package) == package_sha256(package)
    (tmp_path / "a.py").write_text("x = 1\n")
    before = package_sha256(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_bytes(b"")
    assert package_sha256(tmp_path) == before
    (tmp_path / "a.py~").write_text("")
    assert package_sha256(tmp_path) == before
    (tmp_path / "counted.json").write_text("{}")
    assert package_sha256(tmp_path) != before
    (tmp_path / "counted.json").unlink()
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert package_sha256(tmp_path) != before
