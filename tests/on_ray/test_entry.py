import os
import threading
from pathlib import Path

import pytest

from transferlib.errors import UsageError
from transferlib.on_ray.entry import _copy, cluster_run
from transferlib.runs import STORAGE_VARIABLE

RUN_ID = "20261125-014503-compare-3fa9"


@pytest.mark.parametrize("word", ["../secret", "/etc", "20261125-014503-compare-3fa9/..", "", "x; rm -rf /", "@last"])
def test_only_a_run_id_is_taken_from_the_command_line_of_a_cluster_job(tmp_path: Path, word: str) -> None:
    with pytest.raises(UsageError, match="no run id"):
        cluster_run(word, {STORAGE_VARIABLE: str(tmp_path)})


def test_a_storage_that_the_head_does_not_see_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not under"):
        cluster_run(RUN_ID, {STORAGE_VARIABLE: str(tmp_path)})


def test_a_run_on_a_shared_disk_is_found_by_its_id(tmp_path: Path) -> None:
    (tmp_path / RUN_ID).mkdir()
    (tmp_path / RUN_ID / "spec.yaml").touch()
    assert cluster_run(RUN_ID, {STORAGE_VARIABLE: str(tmp_path)}).path == tmp_path / RUN_ID


def copied(written: bytes, log: Path) -> bytes:
    """Return what comes out beside the log when a process prints something."""
    read_end, write_end = os.pipe()
    shown_end, out = os.pipe()
    copier = threading.Thread(target=_copy, args=(read_end, out, log))
    writer = threading.Thread(target=lambda: (os.write(write_end, written), os.close(write_end)))
    shown: list[bytes] = []
    reader = threading.Thread(target=lambda: shown.extend(iter(lambda: os.read(shown_end, 1 << 16), b"")))
    for thread in (copier, writer, reader):
        thread.start()
    writer.join(10)
    copier.join(10)
    assert not copier.is_alive()
    os.close(out)
    reader.join(10)
    os.close(read_end)
    os.close(shown_end)
    return b"".join(shown)


def test_what_a_job_prints_is_in_its_log_too(tmp_path: Path) -> None:
    printed = b"x" * 200_000
    assert copied(printed, tmp_path / "job.log") == printed
    assert (tmp_path / "job.log").read_bytes() == printed


def test_a_log_that_cannot_be_written_holds_nobody_up_and_is_told_once() -> None:
    printed = b"x" * 500_000  # more than a pipe holds
    shown = copied(printed, Path("/dev/full"))
    assert shown.count(b"x") == len(printed)
    assert shown.count(b"/dev/full lacks what is printed here: No space left on device.") == 1
