"""A job that is followed on a cluster: nothing that hangs there holds us up, and a hiccup ends nothing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from transferlib.cli import remote_job
from transferlib.cli.executor import StopSignals
from transferlib.cli.remote_job import RemoteJob
from transferlib.cli.watching import watch
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


class Playing:
    """A job on a cluster that runs until it is asked to stop."""

    outlives_us = True

    def __init__(self, send: Callable[[], object]) -> None:
        self.news: list[str] = []
        self.is_asked = False
        self._send = send

    def poll(self) -> int | None:
        self._send()
        return 5 if self.is_asked else None

    def ask_to_stop(self) -> None:
        self.is_asked = True

    def leaving_lines(self) -> list[str]:
        return ["The job goes on."]


@pytest.mark.parametrize(
    ("number", "state", "code", "is_asked"),
    [
        (signal.SIGINT, "left", 130, False),
        (signal.SIGHUP, "left", 130, False),
        (signal.SIGTERM, "stopped", 5, True),
    ],
)
def test_ctrl_c_and_a_closed_terminal_leave_the_job_and_sigterm_stops_it(
    number: signal.Signals, state: str, code: int, is_asked: bool
) -> None:
    snapshot = SimpleNamespace(status={"state": "stopped" if number == signal.SIGTERM else "running"})
    follower: Any = SimpleNamespace(take=lambda: snapshot)
    with StopSignals() as signals:
        job: Any = Playing(lambda: signal.raise_signal(number))
        outcome = watch(job, follower, Quiet(), signals)
    assert (outcome.state, outcome.exit_code, job.is_asked) == (state, code, is_asked)


class Quiet:
    """Show nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def show(self, snapshot: object) -> None:
        pass
