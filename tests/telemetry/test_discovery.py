from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from transferlib.telemetry.discovery import HOST_LABEL, PID_LABEL, START_LABEL, announced, metrics_dir, remove_dead


def entry(pid: int, host: str | None = None, started: str | None = None) -> str:
    labels = {PID_LABEL: str(pid), HOST_LABEL: host or socket.gethostname()}
    labels |= {} if started is None else {START_LABEL: started}
    return json.dumps([{"targets": ["127.0.0.1:1"], "labels": labels}])


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_job_is_listed_as_prometheus_reads_it_while_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "metrics"
    with announced(folder, "run-1", "127.0.0.1:9000"):
        (listed,) = json.loads((folder / "run-1.json").read_text())
        assert listed["targets"] == ["127.0.0.1:9000"]
        # Prometheus keeps no label that begins with two underscores: series have those of the catalogue only.
        assert all(name.startswith("__") and isinstance(text, str) for name, text in listed["labels"].items())
        assert [path.name for path in folder.iterdir()] == ["run-1.json"]
    assert list(folder.iterdir()) == []


def test_a_job_is_unlisted_when_it_fails_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), announced(tmp_path, "run-1", "127.0.0.1:9000"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_job_left_is_removed_by_the_next_and_nothing_else_is(tmp_path: Path, dead_pid: int) -> None:
    (tmp_path / "dead.json").write_text(entry(dead_pid))
    (tmp_path / "alive.json").write_text(entry(os.getpid()))
    (tmp_path / "elsewhere.json").write_text(entry(dead_pid, "another-host"))
    (tmp_path / "not-ours.json").write_text('[{"targets": ["db:9100"]}]')
    (tmp_path / "half.json").write_text("[{")
    with announced(tmp_path, "run-1", "127.0.0.1:9000"):
        pass
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["alive", "elsewhere", "half", "not-ours"]


def test_a_stranger_with_a_dead_jobs_process_id_does_not_keep_its_file(tmp_path: Path) -> None:
    with announced(tmp_path, "run-1", "127.0.0.1:9000"):
        (listed,) = json.loads((tmp_path / "run-1.json").read_text())
        started = listed["labels"][START_LABEL]
        (tmp_path / "dead.json").write_text(entry(os.getpid(), started=str(int(started) - 1)))
        remove_dead(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["run-1.json"]


def test_another_jobs_file_of_the_same_name_is_left_to_it(tmp_path: Path) -> None:
    with announced(tmp_path, "run-1", "127.0.0.1:9000"):
        (tmp_path / "run-1.json").write_text(entry(os.getppid()))
    assert (tmp_path / "run-1.json").exists()


def test_a_process_of_another_user_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    (tmp_path / "theirs.json").write_text(entry(1))
    monkeypatch.setattr("transferlib.telemetry.discovery.os.kill", refuse)
    remove_dead(tmp_path)
    assert (tmp_path / "theirs.json").exists()


def test_the_folder_is_the_users_state_or_what_the_administrator_says(tmp_path: Path) -> None:
    assert metrics_dir({"XDG_STATE_HOME": "/state"}) == Path("/state/transferlib/metrics")
    assert metrics_dir({"TRANSFERLIB_METRICS_DIR": str(tmp_path), "XDG_STATE_HOME": "/state"}) == tmp_path
