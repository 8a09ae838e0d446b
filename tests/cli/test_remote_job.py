"""A job that is followed on a cluster: nothing that hangs there holds us up, and a hiccup ends nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transferlib.cli import remote_job
from transferlib.cli.remote_job import RemoteJob
from transferlib.errors import ClusterUnreachableError, StorageError
from transferlib.on_ray.jobs import JobState
from transferlib.runs import RunFolder
from transferlib.storage.client_mirror import ClientMirror
from transferlib.submissions import Submission


class Client:
    """Answer in a cluster's place."""

    def __init__(self, find: Callable[[], JobState | None]) -> None:
        self._find = find

    def find(self, submission_id: str) -> JobState | None:
        return self._find()

    def logs(self, submission_id: str) -> str:
        return "python: not found"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RemoteJob]:
    monkeypatch.setattr(remote_job, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(remote_job, "SETTLE_S", 0.2)

    def make(find: Callable[[], JobState | None], storage: str | None = None) -> RemoteJob:
        run = RunFolder(tmp_path / "20261125-014503-compare-3fa9")
        run.path.mkdir()
        run.set_status("preparing")
        client: Any = Client(find)
        return RemoteJob(run, Submission(run.run_id, "http://head:8265", storage, 1, time.time()), client)

    return make


def poll_for(job: RemoteJob, seconds: float) -> int | None:
    """Poll for a while; return the first code that comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (code := job.poll()) is not None:
            return code
        time.sleep(0.005)
    return None


def test_a_cluster_that_hangs_does_not_hold_up_who_follows(job: Callable[..., RemoteJob]) -> None:
    freed = threading.Event()
    hanging = job(lambda: freed.wait(10) and None)
    began = time.monotonic()
    assert poll_for(hanging, 0.3) is None
    assert time.monotonic() - began < 1.0
    freed.set()


def test_what_does_not_answer_is_told_once_and_asked_on(
    job: Callable[..., RemoteJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Exception] = [ClusterUnreachableError("answers 502")] * 3

    def find() -> JobState:
        if answers:
            raise answers.pop()
        return JobState("x", "RUNNING")

    def away(*_: object) -> None:
        raise StorageError("away")

    monkeypatch.setattr(ClientMirror, "pull", away)
    followed = job(find, str(tmp_path))
    assert poll_for(followed, 0.5) is None
    assert [line.partition("\n")[0] for line in followed.news] == [
        "The storage does not answer; what is shown may be old. away",
        "answers 502",
        "The cluster answers again.",
    ]


def test_a_job_that_ray_says_has_failed_ends_once_its_last_word_has_had_time(job: Callable[..., RemoteJob]) -> None:
    failed = job(lambda: JobState("x", "FAILED", "exit code 127", 127))
    began = time.monotonic()
    assert poll_for(failed, 5) == 127
    assert time.monotonic() - began >= 0.2
    assert "python: not found" in failed.log_tail()


def test_an_unexpected_error_reaches_who_polls(job: Callable[..., RemoteJob]) -> None:
    def find() -> JobState:
        raise ZeroDivisionError

    broken = job(find)
    with pytest.raises(ZeroDivisionError):
        poll_for(broken, 5)
