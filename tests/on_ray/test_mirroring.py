"""Where a node keeps a run of an object store, and what becomes of a process that may write it no more."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.on_ray.jobs import make_run, write_images
from transferlib.errors import RunFolderError
from transferlib.on_ray import mirroring
from transferlib.on_ray.mirroring import (
    ended_when_superseded,
    make_node_root,
    node_folder,
    remove_node_folder,
    trial_mirror,
)
from transferlib.runs import STORAGE_VARIABLE, RunFolder
from transferlib.storage import trial_mirror as storage_side
from transferlib.storage.client_mirror import ClientMirror
from transferlib.storage.driver_mirror import DriverMirror
from transferlib.storage.layout import list_objects
from transferlib.storage.locations import open_location
from transferlib.storage.trial_mirror import TrialMirror
from transferlib.training.worker import LocalWorker

RUN_ID = "20261125-014503-compare-3fa9"
TRIAL = "resnet18-full-s0-c0"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"transferlib-{os.getuid()}"


def test_a_nodes_folder_is_for_this_user_alone(root: Path) -> None:
    make_node_root()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    root.chmod(0o755)  # as earlier versions made it
    make_node_root()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert root in node_folder(RUN_ID).path.parents


def test_a_link_or_a_file_in_its_place_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=r"is a link of user \d+.*Remove it, or set TMPDIR"):
        make_node_root()
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755
    root.unlink()
    root.touch()
    with pytest.raises(RunFolderError, match="is a file"):
        make_node_root()


def test_another_users_folder_in_its_place_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: mine + 1)
    root.with_name(f"transferlib-{mine + 1}").mkdir()
    with pytest.raises(RunFolderError, match=f"is a folder of user {mine}"):
        make_node_root()


def test_a_done_run_of_a_store_leaves_the_node(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE_VARIABLE, "s3://bucket/runs")
    run = node_folder(RUN_ID)
    run.log.mkdir(parents=True)
    with run.locked():
        remove_node_folder(run)
        assert run.log.exists(), "another job writes it"
    remove_node_folder(run)
    assert list(run.path.parent.iterdir()) == []


def test_a_done_run_on_a_disk_is_the_record_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path, "compare")
    for storage in (None, str(tmp_path)):
        if storage is not None:
            monkeypatch.setenv(STORAGE_VARIABLE, storage)
        remove_node_folder(run)
        assert run.log.exists()
        with trial_mirror(run, TRIAL) as stop_flag:
            assert stop_flag == run.stop_flag


def test_a_trial_that_was_taken_over_ends_as_stopped_and_stores_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_images(tmp_path / "images", {"train": 2, "val": 1, "test": 1})
    client = make_run(tmp_path / "client", data, tmp_path / "cache")
    client.set_status("preparing")
    store = open_location(str(tmp_path / "store")).child(client.run_id)
    ClientMirror(store, client).push_new_run()
    monkeypatch.setattr(mirroring, "store_of", lambda run_id: store)
    monkeypatch.setattr(storage_side, "_CHECK_EVERY_S", 0.0)
    head, old, new = (RunFolder(tmp_path / name / client.run_id) for name in ("head", "old", "new"))
    head.path.mkdir(parents=True)
    with DriverMirror(store, head) as driver:
        with ended_when_superseded(), trial_mirror(old, TRIAL) as stop_flag:
            worker = LocalWorker(stop_flag=stop_flag)
            with TrialMirror(store, new, TRIAL, attempt=driver.attempt):
                while not worker.should_stop():
                    assert not old.stop_flag.exists(), "others on that node go on"
            before = list_objects(store, "trials")
            old.trial(TRIAL).best.write_bytes(b"old")
            old.trial(TRIAL).result.write_text("{}")
        assert list_objects(store, "trials") == before
