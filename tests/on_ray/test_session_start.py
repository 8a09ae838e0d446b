"""A Ray that does not start, and one of which a part dies."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from transferlib.errors import RayError
from transferlib.on_ray import entry, ray_death, session
from transferlib.on_ray.processes import read_process
from transferlib.runs import RunFolder, read_json

TIMED_OUT = (
    "\x1b[36mThe current node timed out during startup\x1b[0m. This could happen because some of the raylet failed to "
    "startup or the GCS has become overloaded."
)


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Take the place of `ray.init`, which fails as often as there are errors in the list that it makes longer."""
    import ray

    calls: list[str] = []

    def init(**options: object) -> None:
        calls.append(os.environ["RAY_ADDRESS"])
        if len(calls) <= int(os.environ["FAILURES"]):
            raise Exception(TIMED_OUT)

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(session, "own_session", lambda: None)
    monkeypatch.setattr(session, "short_base", lambda: str(tmp_path))
    monkeypatch.setattr(ray_death, "own_session", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return calls


def test_a_start_that_times_out_is_tried_once_more(
    tries: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAILURES", "1")
    with session.local_ray(cpus=2, gpus=0, object_store=1):
        assert len(set(tries)) == 2
        assert Path(tempfile.gettempdir()).parent.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_times_out_twice_is_a_sentence(
    tries: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAILURES", "2")
    before = {name: os.environ.get(name) for name in ("RAY_ADDRESS", "TMPDIR", "RAY_AUTH_TOKEN_PATH")}
    with pytest.raises(RayError) as caught, session.local_ray(cpus=2, gpus=0, object_store=1):
        raise AssertionError("it has not started")
    assert str(caught.value).startswith(
        "Ray did not start on this machine, in two tries: The current node timed out during startup."
    )
    assert "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert {name: os.environ.get(name) for name in before} == before


def test_a_cluster_that_cannot_be_joined_is_a_sentence(
    tries: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("FAILURES", "1")
    with session.cluster_ray():
        assert len(tries) == 2
    monkeypatch.setenv("FAILURES", "9")
    with pytest.raises(RayError, match="did not let it join, in two tries"), session.cluster_ray():
        raise AssertionError("it has not joined")
    assert list(tmp_path.iterdir()) == []


def _fail_after_the_death_of(daemon: subprocess.Popen[bytes]) -> None:
    daemon.kill()
    daemon.wait()
    raise KeyError("object_store_memory")


def test_an_error_after_a_part_of_ray_died_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raylet = tmp_path / "raylet"
    raylet.symlink_to("/bin/sleep")
    monkeypatch.setattr(ray_death, "own_session", lambda: None)
    (tmp_path / "tl").mkdir()
    environment = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "tl" / "token")}
    # What the daemon started is ended with it.
    starts = f"exec -a {raylet} /bin/sleep 60"
    said: list[str] = []

    def record(text: str) -> int:
        said.append(text)
        return 7

    with (
        subprocess.Popen(["/bin/bash", "-c", starts], env=environment) as daemon,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment) as agent,
    ):
        while not (process := read_process(daemon.pid)) or process.command_line[:1] != [str(raylet)]:
            pass
        monkeypatch.setattr(ray_death.os, "_exit", lambda code: said.append(str(code)))
        with (
            pytest.raises(RayError, match="its scheduler, raylet"),
            ray_death.told_of_death(record),
            ray_death.ended_with_ray(tmp_path / "tl"),
        ):
            _fail_after_the_death_of(daemon)
        assert agent.wait(10) == -9
    assert said[-1] == "7"
    assert "raylet" in said[0]
    assert not (tmp_path / "tl").exists()


def test_an_error_under_a_healthy_ray_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_death, "LATE_S", 0.0)
    monkeypatch.setattr(ray_death, "own_session", lambda: None)
    with pytest.raises(KeyError), ray_death.ended_with_ray(tmp_path):
        raise KeyError("mine")


def test_ray_that_is_shut_down_did_not_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread looks just before the end of the block, and sees that Ray's processes are gone just after."""
    monkeypatch.setattr(ray_death, "own_session", lambda: None)
    monkeypatch.setattr(ray_death, "POLL_S", 0.01)
    said: list[str] = []
    looks, ended = threading.Event(), threading.Event()

    look_at_another = ray_death._Watch.death

    def death(self: ray_death._Watch, timeout_s: float) -> str | None:
        if self._folder != tmp_path:
            return look_at_another(self, timeout_s)  # the Ray that other tests share is watched too
        looks.set()
        ended.wait(10)
        return "raylet"

    def record(text: str) -> int:
        said.append(text)
        return 1

    monkeypatch.setattr(ray_death._Watch, "death", death)
    monkeypatch.setattr(ray_death.os, "_exit", lambda code: said.append("exit"))
    with ray_death.told_of_death(record):
        with ray_death.ended_with_ray(tmp_path):
            looks.wait(10)
        ended.set()
        for thread in threading.enumerate():
            if thread.name == "watch-ray":
                thread.join(10)
    assert said == []


@pytest.mark.parametrize(("is_asked_to_stop", "state", "code"), [(True, "stopped", 5), (False, "failed", 1)])
def test_a_stop_that_ends_ray_too_is_a_stop(tmp_path: Path, is_asked_to_stop: bool, state: str, code: int) -> None:
    run = RunFolder(tmp_path / "20261127-120000-compare-abcd")
    run.path.mkdir()
    if is_asked_to_stop:
        run.stop_flag.touch()
    assert entry._record_death(run, "The Ray of this job died.") == code
    status = read_json(run.status)
    assert status is not None
    assert (status["state"], status["exit_code"]) == (state, code)
    assert f"submit compare --resume {run.path}" in status["error"]
