"""A full disk is said, with what is free and how to go on; only a terminal that has gone is passed over."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from transferlib import runs
from transferlib.cli.attending import _record_end
from transferlib.cli.following import Snapshot
from transferlib.cli.run_state import read_state
from transferlib.cli.watching import Outcome, hang_up_is_no_error
from transferlib.errors import RunFolderError
from transferlib.runs import RunFolder, read_json


def no_room(*arguments: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path, "compare")
    run.set_status("running", message="a long message that the next one is shorter than")
    return run


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_what_is_no_lost_terminal_is_raised(code: int) -> None:
    """Every error of the system was taken for a lost terminal: exit 1, and nothing printed."""
    with pytest.raises(OSError, match="what it was"), hang_up_is_no_error():
        raise OSError(code, "what it was")


@pytest.mark.parametrize("code", [errno.EIO, errno.EPIPE])
def test_a_terminal_that_has_gone_ends_nothing(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with hang_up_is_no_error():
        raise OSError(code, "?")
    print("to nobody")
    sys.stdout.close()


def test_a_status_is_written_over_the_old_one_where_there_is_no_room(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "write_atomic", no_room)
    run.set_status("failed", exit_code=1, error="full")
    status = read_json(run.status)
    assert (status["state"], status["error"]) == ("failed", "full")
    run.status.unlink()
    with pytest.raises(OSError, match="No space left"):
        run.set_status("failed")


def test_a_job_that_died_on_a_full_disk_is_told_with_what_is_free(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "set_status", no_room)
    outcome = Outcome("died", 1, "The job ended with exit code 1 without a result.", Snapshot({}, (), (), (), None))
    text = _record_end(run, outcome).text
    assert text.startswith("The job ended")
    assert f"{run.path} is on a disk that is full (" in text
    assert "MB free). Make room there, then go on with --resume." in text


def test_a_look_at_the_lock_does_not_keep_a_job_from_starting(run: RunFolder) -> None:
    """`list` holds the lock for a moment; a job that began just then was refused."""
    with open(run.path / "lock", "a+", encoding="utf-8") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        timer = threading.Timer(0.2, lambda: fcntl.flock(look, fcntl.LOCK_UN))
        timer.start()
        with run.locked():
            assert run.is_locked()
        timer.join()
    with run.locked(), pytest.raises(RunFolderError, match="is being written by process"), run.locked():
        pass


def test_a_run_whose_holder_was_killed_is_lost_at_once_and_one_that_was_let_go_is_not(run: RunFolder) -> None:
    run.set_status("preparing")
    with run.locked():
        assert read_state(run).state == "preparing"
    assert read_state(run).state == "preparing"  # whoever made it ready has let it go, and its job is about to begin
    killed = subprocess.Popen(
        [sys.executable, "-c", "import os, sys; print(os.getpid()); os.kill(os.getpid(), 9)"], stdout=subprocess.PIPE
    )
    name, _ = killed.communicate()
    (run.path / "lock").write_bytes(name)
    assert read_state(run).state == "lost"
    (run.path / "lock").write_text(f"{os.getpid()}\n")
    assert read_state(run).state == "preparing"
