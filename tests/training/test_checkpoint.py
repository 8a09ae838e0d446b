from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch

from transferlib.data.schedule import Position
from transferlib.errors import CheckpointError
from transferlib.training.checkpoint import CheckpointStore


def save(store: CheckpointStore, position: Position, best: Position | None = None) -> None:
    weights = torch.full((2, 3, 2, 2), float(position.epoch)).to(memory_format=torch.channels_last)
    state = {"position": position, "best": None if best is None else {"position": best}}
    store.save(position, {"model": {"w": weights}, "optimizer": {}}, lambda seconds: state)


def truncate(store: CheckpointStore, position: Position, name: str = "model.safetensors") -> None:
    path = store.folder / f"e{position.epoch:05d}-s{position.step:06d}" / name
    os.truncate(path, path.stat().st_size // 2)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "last")


def test_what_was_saved_is_read_back_bit_for_bit(store: CheckpointStore) -> None:
    tensors = {"w": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last), "n": torch.tensor(7)}
    state = {"third": 1 / 3, "best": None}
    store.save(Position(1, 2), {"model": tensors}, lambda seconds: state)
    found = store.newest_good()
    assert found is not None
    assert found.position == Position(1, 2)
    assert found.state == state
    assert all(torch.equal(found.tensors["model"][key], tensors[key]) for key in tensors)


def test_a_checkpoint_holds_what_writing_it_took(store: CheckpointStore) -> None:
    store.save(Position(0, 1), {"model": {"w": torch.zeros(1)}}, lambda seconds: {"seconds": seconds})
    assert store.load(Position(0, 1)).state["seconds"] > 0


def test_the_best_and_the_last_two_are_kept(store: CheckpointStore) -> None:
    for epoch in range(1, 6):
        save(store, Position(epoch, 0), best=Position(min(epoch, 2), 0))
    save(store, Position(5, 3), best=Position(2, 0))
    assert store.positions() == [(2, 0), (5, 0), (5, 3)]


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "MANIFEST.json", "optimizer.safetensors"])
def test_a_damaged_newest_one_is_passed_over_with_a_warning(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    save(store, Position(1, 0))
    save(store, Position(2, 0))
    truncate(store, Position(2, 0), name)
    found = store.newest_good()
    assert found is not None
    assert found.position == Position(1, 0)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "e00002-s000000" in caplog.text


def test_a_flipped_bit_is_seen(store: CheckpointStore) -> None:
    save(store, Position(1, 0))
    path = store.folder / "e00001-s000000" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="sha256"):
        store.load(Position(1, 0))


def test_one_whose_best_epoch_is_damaged_cannot_serve(store: CheckpointStore) -> None:
    best = Position(2, 0)
    save(store, Position(1, 0), best=Position(1, 0))
    save(store, best, best=best)
    save(store, Position(3, 0), best=best)
    save(store, Position(4, 0), best=best)
    truncate(store, best)
    assert store.newest_good() is None
    store.discard_after(Position(0, 0))
    assert store.positions() == []


def test_all_damaged_begins_anew_and_says_so(store: CheckpointStore, caplog: pytest.LogCaptureFixture) -> None:
    save(store, Position(1, 0))
    truncate(store, Position(1, 0))
    assert store.newest_good() is None
    assert "begins anew" in caplog.text


def test_a_half_written_one_does_not_exist(store: CheckpointStore) -> None:
    save(store, Position(1, 0))
    (store.folder / "e00002-s000000.writing").mkdir()
    assert store.positions() == [(1, 0)]
    save(store, Position(2, 0))
    assert sorted(path.name for path in store.folder.iterdir()) == ["e00001-s000000", "e00002-s000000"]


def test_one_that_cannot_be_written_leaves_those_before_it(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, Position(1, 0))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"No space left on device.*GB are free"):
            save(store, Position(2, 0))
    assert [path.name for path in store.folder.iterdir()] == ["e00001-s000000"]
    assert store.newest_good() is not None


def test_no_checkpoints_are_no_reason_to_warn(store: CheckpointStore, caplog: pytest.LogCaptureFixture) -> None:
    assert store.newest_good() is None
    assert not caplog.records
