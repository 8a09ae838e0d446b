"""A trial in a store, whatever is cut off: a fresh node finds the last whole checkpoint; the newer writer is alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from transferlib.data.schedule import Position
from transferlib.errors import RunFolderError, StorageError
from transferlib.records import TrialKey, TrialResult
from transferlib.runs import RunFolder
from transferlib.storage import trial_mirror
from transferlib.storage.checkpoints import CheckpointCopies
from transferlib.storage.client_mirror import ClientMirror
from transferlib.storage.driver_mirror import DriverMirror
from transferlib.storage.layout import list_objects
from transferlib.storage.lease import LeaseLostError
from transferlib.storage.locations import Location, open_location
from transferlib.storage.rank_mirror import RankMirror
from transferlib.storage.trial_mirror import TrialMirror
from transferlib.training.checkpoint import CheckpointStore

TRIAL = "resnet18-full-s0-c0"
RUN = "20261125-014503-compare-3fa9"
RESULT = TrialResult(TrialKey.parse(TRIAL), 0.1, "done")


def node(folder: Path, name: str) -> RunFolder:
    """Return the run's folder on a node of its own."""
    run = RunFolder(folder / name / RUN)
    run.trial(TRIAL).path.mkdir(parents=True)
    run.log.mkdir()
    return run


def save(run: RunFolder, epoch: int) -> None:
    """Write a checkpoint whose tensors hold the epoch."""
    tensors = {name: {"w": torch.full((3,), float(epoch))} for name in ("model", "optimizer")}
    state = {"best": {"position": [epoch, 0]}}
    CheckpointStore(run.trial(TRIAL).checkpoints).save(Position(epoch, 0), tensors, lambda _: state)


def restored(store: Location, run: RunFolder) -> float | None:
    """Return the epoch of the newest checkpoint that a fresh node goes on from."""
    CheckpointCopies(store, run.path, TRIAL, lambda: None).pull(list_objects(store))
    checkpoint = CheckpointStore(run.trial(TRIAL).checkpoints).newest_good()
    if checkpoint is None:
        return None
    values = {float(tensors["w"][0]) for tensors in checkpoint.tensors.values()}
    assert len(values) == 1, "a mixture of two checkpoints"
    return values.pop()


@pytest.fixture
def store(tmp_path: Path) -> Location:
    (tmp_path / "store" / RUN).mkdir(parents=True)
    return open_location(str(tmp_path / "store" / RUN))


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function after which only so many more objects can be stored or removed."""

    def after(number: int) -> None:
        left = [number]
        for name in ("write", "upload", "delete"):
            real = getattr(Location, name)

            def limited(self: Location, *args: object, _real: Callable[..., None] = real) -> None:
                if left[0] == 0:
                    raise StorageError("cut off")
                left[0] -= 1
                _real(self, *args)

            monkeypatch.setattr(Location, name, limited)

    return after


@pytest.mark.parametrize("number", range(12))
def test_an_upload_cut_anywhere_leaves_the_old_checkpoint_or_the_new_one(
    tmp_path: Path, store: Location, cut: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    first, second = node(tmp_path, "first"), node(tmp_path, "second")
    copies = CheckpointCopies(store, first.path, TRIAL, lambda: None)
    save(first, 1)
    copies.push()
    save(first, 2)
    cut(number)
    try:
        copies.push()
        is_whole = True
    except StorageError:
        is_whole = False
    monkeypatch.undo()
    assert restored(store, second) in ((2.0,) if is_whole else (1.0, 2.0))


def begin(tmp_path: Path, store: Location) -> None:
    """Bring a new run into the store, as a client does."""
    client = node(tmp_path, "client")
    client.spec.write_text("schema: 1\n")
    client.plan.write_text("{}")
    client.set_status("preparing")
    ClientMirror(store, client).push_new_run()


def test_a_run_exists_for_others_only_when_it_is_whole(tmp_path: Path, store: Location) -> None:
    client = node(tmp_path, "client")
    store.write("plan.json", b"{}")
    with pytest.raises(RunFolderError, match="holds no run"):
        ClientMirror(store, client).pull()


def test_what_a_trial_writes_on_one_node_reaches_the_driver_on_another(tmp_path: Path, store: Location) -> None:
    begin(tmp_path, store)
    head, worker = node(tmp_path, "head"), node(tmp_path, "worker")
    with DriverMirror(store, head) as driver:
        with TrialMirror(store, worker, TRIAL, attempt=driver.attempt):
            assert worker.spec.read_text() == "schema: 1\n"
            worker.trial(TRIAL).metrics.write_text("epoch\n0\n")
            worker.trial(TRIAL).result.write_text(RESULT.to_json())
        driver.pull()
        assert head.trial(TRIAL).metrics.read_text() == "epoch\n0\n"
        assert head.trial(TRIAL).read_result() == RESULT


def test_what_the_driver_writes_of_a_trial_that_nobody_trains_reaches_client_and_next_driver(
    tmp_path: Path, store: Location
) -> None:
    begin(tmp_path, store)
    head, elsewhere = node(tmp_path, "head"), node(tmp_path, "elsewhere")
    spared = replace(RESULT, state="spared", reason="rate 0.03 was better on seeds 0 and 1")
    with DriverMirror(store, head) as driver:
        driver.write(head.trial(TRIAL).result, spared.to_json())
        assert head.trial(TRIAL).read_result() == spared
        ClientMirror(store, elsewhere).pull()
        assert elsewhere.trial(TRIAL).read_result() == spared
        driver.pull()
        assert head.trial(TRIAL).read_result() == spared
    with DriverMirror(store, node(tmp_path, "another")):
        assert RunFolder(tmp_path / "another" / RUN).trial(TRIAL).read_result() == spared


def test_what_the_driver_cannot_store_is_not_here_either(
    tmp_path: Path, store: Location, cut: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, store)
    head = node(tmp_path, "head")
    with DriverMirror(store, head) as driver:
        cut(0)
        with pytest.raises(StorageError, match="cut off"):
            driver.write(head.trial(TRIAL).result, RESULT.to_json())
        assert not head.trial(TRIAL).result.exists()
        monkeypatch.undo()


def test_a_clients_stop_reaches_driver_and_trial_within_two_seconds(tmp_path: Path, store: Location) -> None:
    begin(tmp_path, store)
    head, worker = node(tmp_path, "head"), node(tmp_path, "worker")
    with DriverMirror(store, head) as driver, TrialMirror(store, worker, TRIAL, attempt=driver.attempt):
        asked_at = time.monotonic()
        ClientMirror(store, node(tmp_path, "other")).ask_to_stop()
        while not (head.stop_flag.exists() and worker.stop_flag.exists()):
            assert time.monotonic() - asked_at < 2.0
            time.sleep(0.02)


def wait_for_file(path: Path, within_s: float = 2.0) -> None:
    asked_at = time.monotonic()
    while not path.exists():
        assert time.monotonic() - asked_at < within_s
        time.sleep(0.02)


def test_a_processs_own_flag_appears_with_the_runs(tmp_path: Path, store: Location) -> None:
    begin(tmp_path, store)
    worker = node(tmp_path, "worker")
    with DriverMirror(store, node(tmp_path, "head")) as driver:
        with (
            TrialMirror(store, worker, TRIAL, attempt=driver.attempt) as trial,
            RankMirror(store, node(tmp_path, "second"), TRIAL, rank=1) as rank,
        ):
            assert not trial.stop_flag.exists()
            assert not rank.stop_flag.exists()
            store.write("STOP", b"")
            wait_for_file(trial.stop_flag)
            wait_for_file(rank.stop_flag)
        assert not trial.stop_flag.exists()


def test_a_store_that_hangs_does_not_hold_up_a_stop_that_was_asked_for_here(
    tmp_path: Path, store: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, store)
    worker, goes_on, hangs = node(tmp_path, "worker"), threading.Event(), threading.Event()
    real = Location.exists

    def exists(self: Location, name: str) -> bool:
        hangs.set()
        return goes_on.wait(30) and real(self, name)

    with (
        DriverMirror(store, node(tmp_path, "head")) as driver,
        TrialMirror(store, worker, TRIAL, attempt=driver.attempt) as trial,
    ):
        monkeypatch.setattr(Location, "exists", exists)
        assert hangs.wait(10)
        worker.stop_flag.touch()
        wait_for_file(trial.stop_flag)
        goes_on.set()


def test_a_trial_that_a_newer_start_has_taken_over_is_told_to_stop(
    tmp_path: Path, store: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_mirror, "_CHECK_EVERY_S", 0.0)
    begin(tmp_path, store)
    old, new = node(tmp_path, "old"), node(tmp_path, "new")
    with DriverMirror(store, node(tmp_path, "head")) as driver:
        older = TrialMirror(store, old, TRIAL, attempt=driver.attempt, patience_s=0.1)
        older.__enter__()
        with TrialMirror(store, new, TRIAL, attempt=driver.attempt) as newer:
            wait_for_file(older.stop_flag)
            assert not newer.stop_flag.exists()
            assert not old.stop_flag.exists(), "others on that node go on"
        with suppress(LeaseLostError):
            older.__exit__(None, None, None)


@pytest.mark.parametrize("where", ["same", "other"])
def test_a_finished_trials_model_leaves_the_node_and_comes_back_for_the_test_set(
    tmp_path: Path, store: Location, where: str
) -> None:
    begin(tmp_path, store)
    worker, name = node(tmp_path, "worker"), f"trials/{TRIAL}/best.safetensors"
    with DriverMirror(store, node(tmp_path, "head")) as driver:
        with TrialMirror(store, worker, TRIAL, attempt=driver.attempt):
            worker.trial(TRIAL).best.write_bytes(b"model")
            worker.trial(TRIAL).result.write_text(RESULT.to_json())
        assert not worker.trial(TRIAL).best.exists()
        stored = store.info(name)
        assert stored is not None
        evaluating = worker if where == "same" else node(tmp_path, "other")
        with TrialMirror(store, evaluating, TRIAL, attempt=driver.attempt):
            assert evaluating.trial(TRIAL).best.read_bytes() == b"model"
            evaluating.trial(TRIAL).predictions("test").write_bytes(b"rows")
        assert not evaluating.trial(TRIAL).best.exists()
        assert store.info(name) == stored, "sent once"
        assert store.read(f"trials/{TRIAL}/predictions-test.parquet") == b"rows"


def test_a_stopped_trials_model_stays_on_its_node(tmp_path: Path, store: Location) -> None:
    begin(tmp_path, store)
    worker = node(tmp_path, "worker")
    with DriverMirror(store, node(tmp_path, "head")) as driver:
        with TrialMirror(store, worker, TRIAL, attempt=driver.attempt):
            worker.trial(TRIAL).best.write_bytes(b"model")
            worker.trial(TRIAL).result.write_text(replace(RESULT, state="stopped").to_json())
        assert worker.trial(TRIAL).best.exists()


def test_a_second_driver_is_refused_while_the_first_is_alive(tmp_path: Path, store: Location) -> None:
    begin(tmp_path, store)
    with DriverMirror(store, node(tmp_path, "head")), pytest.raises(RunFolderError):
        DriverMirror(store, node(tmp_path, "another")).__enter__()


def test_a_newer_start_of_a_trial_ends_the_older_ones_writing(tmp_path: Path, store: Location) -> None:
    begin(tmp_path, store)
    old, new = node(tmp_path, "old"), node(tmp_path, "new")
    with DriverMirror(store, node(tmp_path, "head")) as driver:
        older = TrialMirror(store, old, TRIAL, attempt=driver.attempt, patience_s=0.1)
        older.__enter__()
        with TrialMirror(store, new, TRIAL, attempt=driver.attempt):
            new.trial(TRIAL).best.write_bytes(b"new")
        old.trial(TRIAL).best.write_bytes(b"old")
        with pytest.raises(LeaseLostError):
            older.__exit__(None, None, None)
    assert store.read(f"trials/{TRIAL}/best.safetensors") == b"new"


def test_a_trial_killed_on_one_node_goes_on_from_its_checkpoint_on_another(tmp_path: Path, store: Location) -> None:
    begin(tmp_path, store)
    killed, other = node(tmp_path, "killed"), node(tmp_path, "other")
    with DriverMirror(store, node(tmp_path, "head")) as driver:
        dead = TrialMirror(store, killed, TRIAL, attempt=driver.attempt)
        dead.__enter__()
        save(killed, 1)
        dead.flush()
        save(killed, 2)  # on its way when the process ends
        for thread in dead._threads:
            thread.stop()
        with TrialMirror(store, other, TRIAL, attempt=driver.attempt):
            checkpoint = CheckpointStore(other.trial(TRIAL).checkpoints).newest_good()
            assert checkpoint is not None
            assert checkpoint.position.epoch in (1, 2)
            save(other, 3)
        assert restored(store, node(tmp_path, "third")) == 3.0


def test_a_slow_store_does_not_hold_training_up_and_loses_nothing(
    tmp_path: Path, store: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, store)
    worker = node(tmp_path, "worker")
    with DriverMirror(store, node(tmp_path, "head")) as driver:
        for name in ("write", "upload"):
            real = getattr(Location, name)

            def slow(self: Location, *args: object, _real: Callable[..., None] = real) -> None:
                time.sleep(0.2)
                _real(self, *args)

            monkeypatch.setattr(Location, name, slow)
        with TrialMirror(store, worker, TRIAL, attempt=driver.attempt, push_every_s=0.01):
            began = time.monotonic()
            for epoch in range(1, 6):
                save(worker, epoch)
                worker.trial(TRIAL).metrics.write_text(f"epoch\n{epoch}\n")
            assert time.monotonic() - began < 0.5
        assert store.read(f"trials/{TRIAL}/metrics.csv") == b"epoch\n5\n"
        assert restored(store, node(tmp_path, "other")) == 5.0


def test_a_store_that_stays_away_is_told_and_the_trial_is_kept_here(
    tmp_path: Path, store: Location, cut: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, store)
    worker = node(tmp_path, "worker")
    with DriverMirror(store, node(tmp_path, "head")) as driver:
        mirror = TrialMirror(store, worker, TRIAL, attempt=driver.attempt, patience_s=0.1)
        mirror.__enter__()
        cut(0)
        save(worker, 1)
        with pytest.raises(StorageError, match=r"after 0 s of trying: cut off.*--resume"):
            mirror.__exit__(None, None, None)
        monkeypatch.undo()
        assert restored(store, worker) == 1.0
        with TrialMirror(store, worker, TRIAL, attempt=driver.attempt):  # started again on the same node
            pass
        assert restored(store, node(tmp_path, "other")) == 1.0


def test_a_removed_file_is_gone_here_and_in_the_store(tmp_path: Path, store: Location) -> None:
    begin(tmp_path, store)
    head = node(tmp_path, "head")
    name = f"trials/{TRIAL}/best.safetensors"
    with DriverMirror(store, head) as driver:
        store.write(name, b"model")
        driver.remove(head.path / name)
        driver.remove(head.path / name)
        assert not store.exists(name)


def test_leave_to_go_on_under_other_versions_is_for_one_attempt(tmp_path: Path, store: Location) -> None:
    begin(tmp_path, store)
    client = RunFolder(tmp_path / "client" / RUN)
    client.resume_changed_flag.touch()
    ClientMirror(store, client).push_new_run()
    assert store.exists("RESUME_CHANGED")
    client.resume_changed_flag.unlink()
    ClientMirror(store, client).push_new_run()
    assert not store.exists("RESUME_CHANGED")


@pytest.mark.parametrize("is_here", [True, False])
def test_a_copy_is_kept_here_and_in_the_store_wherever_the_file_was_written(
    tmp_path: Path, store: Location, *, is_here: bool
) -> None:
    begin(tmp_path, store)
    head = node(tmp_path, "head")
    best = head.trial(TRIAL).best
    if is_here:
        best.write_bytes(b"a model")
    else:
        store.write(best.relative_to(head.path).as_posix(), b"a model")
    with head.locked(), DriverMirror(store, head, sync_every_s=60.0) as driver:
        driver.copy(best, head.model)
    assert store.read(RunFolder.MODEL) == head.model.read_bytes() == b"a model"


def test_a_status_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, store: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, store)
    store.write("status.json", b'{"state": "running"}')
    client = RunFolder(tmp_path / "client" / RUN)
    real, torn = Location.read, [b'{"state": "run', b'{"state": \xff\xfe']

    def read(self: Location, name: str) -> bytes:
        return torn.pop() if name == "status.json" and torn else real(self, name)

    monkeypatch.setattr(Location, "read", read)
    ClientMirror(store, client).pull()
    assert client.status.read_bytes() == b'{"state": "running"}'
    assert not torn
