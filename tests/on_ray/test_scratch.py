"""A job's temporary folders: held while it lives, removed with it, swept by the next where it was killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from transferlib.on_ray import scratch
from transferlib.on_ray.scratch import scratch_folder, short_base, sweep, temporary_files_in

HOLDS = """
import sys, time
from transferlib.on_ray.scratch import scratch_folder
with scratch_folder(sys.argv[1]) as folder:
    (folder / "ray").mkdir()
    (folder / "tmp").mkdir()
    print(folder, flush=True)
    time.sleep(60)
"""
SLEEPS = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run a process that holds a folder, as a job does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def _folder(base: Path, name: str = "tl-ab_12cd9", *, age_s: float = 3600.0, files: tuple[str, ...] = ("ray",)) -> Path:
    folder = base / name
    folder.mkdir()
    for file in files:
        (folder / file).mkdir()
    os.utime(folder, (time.time() - age_s, time.time() - age_s))
    return folder


def test_folder_goes_with_the_block_and_is_the_users_alone(tmp_path: Path) -> None:
    with scratch_folder(str(tmp_path)) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "ray").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_living_job_is_left_alone(held: tuple[subprocess.Popen[str], Path], tmp_path: Path) -> None:
    _, folder = held
    sweep(tmp_path)
    assert (folder / "tmp").is_dir()


def test_folder_of_a_killed_job_goes_at_the_next_start(
    held: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, folder = held
    process.kill()
    process.wait()
    with scratch_folder(str(tmp_path)) as own:
        assert list(tmp_path.iterdir()) == [own]
        assert not folder.exists()


def test_what_a_killed_job_left_running_is_ended_too(held: tuple[subprocess.Popen[str], Path], tmp_path: Path) -> None:
    process, folder = held
    environment = {**os.environ, scratch.TOKEN_VARIABLE: str(folder / "token")}
    orphan = subprocess.Popen([sys.executable, "-c", SLEEPS], stdout=subprocess.PIPE, env=environment)
    with orphan:
        assert orphan.stdout is not None
        orphan.stdout.readline()
        process.kill()
        process.wait()
        sweep(tmp_path)
        assert orphan.wait(10) == -9
    assert not folder.exists()


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_worker_that_writes_over_its_environment_is_found_by_its_session_and_its_log(
    tmp_path: Path, is_ours: bool
) -> None:
    ours, others = tmp_path / "tl-ab_12cd9", tmp_path / "elsewhere"
    ours.mkdir()
    others.mkdir()
    log = f"stderr=open({str((ours if is_ours else others) / 'worker.err')!r}, 'w')"
    worker = f"subprocess.run({['ray::x', '-c', SLEEPS]!r}, env={{}}, executable={sys.executable!r}, {log})"
    starts = f"import subprocess, os\nprint(os.getpid(), flush=True)\n{worker}"
    with subprocess.Popen(
        [sys.executable, "-c", starts], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        assert [leader.stdout.readline().strip(), leader.stdout.readline().strip()] == [str(leader.pid), "up"]
        found = scratch.members(ours, leader.pid)
        assert any(process.command_line[0] == "ray::x" for process in found) is is_ours
        if is_ours:
            scratch.end_members(ours, leader.pid)
            assert leader.wait(10) in (0, -9)
        else:
            os.killpg(leader.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("host", "boot", "is_removed"), [("", "", True), ("", "another start", True), ("another host", "", False)]
)
def test_only_the_machine_that_a_lock_names_takes_it_for_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, boot: str, is_removed: bool
) -> None:
    folder = _folder(tmp_path, files=("ray", "tmp"))
    (folder / "lock").write_text(f"{host or os.uname().nodename}\n{boot or scratch._boot()}\n123")
    sessions: list[int | None] = []
    monkeypatch.setattr(scratch, "members", lambda folder, session: sessions.append(session) or set())
    sweep(tmp_path)
    assert folder.exists() is not is_removed
    assert sessions == ([] if host else [None if boot else 123])


def test_a_disk_without_locks_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(scratch.fcntl, "flock", flock)
    with scratch_folder(str(tmp_path)) as folder:
        sweep(tmp_path)
        assert folder.exists()


def test_folder_without_a_lock_goes_when_it_is_old_and_nobody_uses_it(tmp_path: Path) -> None:
    old = _folder(tmp_path)
    (old / "ray" / "session_2026").mkdir()
    young = _folder(tmp_path, "tl-01234567", age_s=1.0)
    (young / "ray" / "session_2026").mkdir()
    os.utime(old, (time.time() - 3600, time.time() - 3600))
    sweep(tmp_path)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("files", [(), ("tmp",), ("ray",)])
def test_folder_that_holds_nothing_of_rays_stays(tmp_path: Path, files: tuple[str, ...]) -> None:
    folder = _folder(tmp_path, files=files)
    sweep(tmp_path)
    assert folder.exists()


def test_folder_that_a_living_cluster_uses_stays(tmp_path: Path) -> None:
    folder = _folder(tmp_path, files=("node-1",))
    environment = {**os.environ, scratch.TOKEN_VARIABLE: str(folder / "token")}
    with subprocess.Popen([sys.executable, "-c", SLEEPS], stdout=subprocess.PIPE, env=environment) as node:
        assert node.stdout is not None
        node.stdout.readline()
        sweep(tmp_path)
        assert folder.exists()
        node.kill()


@pytest.mark.parametrize("name", ["tl-notes", "tl-probe-ab12cd34", "tune-ab12cd34", "tl-AB12CD34"])
def test_folder_of_another_name_stays(tmp_path: Path, name: str) -> None:
    folder = _folder(tmp_path, name)
    sweep(tmp_path)
    assert folder.exists()


def test_folder_that_holds_anything_else_stays(tmp_path: Path) -> None:
    folder = _folder(tmp_path, files=("ray", "thesis"))
    sweep(tmp_path)
    assert (folder / "thesis").exists()


def test_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    target = _folder(tmp_path)
    (tmp_path / "base" / target.name).symlink_to(target)
    sweep(tmp_path / "base")
    assert target.exists()


def test_temporary_files_go_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = tempfile.gettempdir()
    with temporary_files_in(tmp_path / "tmp", for_children=True):
        assert Path(tempfile.mkdtemp(prefix="tune-")).parent == tmp_path / "tmp"
        assert os.environ["TMPDIR"] == str(tmp_path / "tmp")
    assert tempfile.gettempdir() == before
    assert os.environ["TMPDIR"] == str(tmp_path)


def test_rays_folder_is_short_whatever_tmpdir_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/a/place/that/is/too/long")
    assert short_base() == "/tmp"
