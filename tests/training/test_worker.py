from __future__ import annotations

from pathlib import Path

import pytest
import torch

from transferlib.training.worker import LocalWorker, StopFlag, share_first


def test_one_process_is_the_identity() -> None:
    worker = LocalWorker()
    model, tensor = torch.nn.Sequential(torch.nn.BatchNorm2d(2)), torch.ones(3)
    modules = dict(model.named_modules())
    assert worker.prepare_model(model, sync_batchnorm=True) is model
    assert dict(model.named_modules()) == modules
    assert worker.all_reduce(tensor) is tensor
    assert worker.gather("value") == ["value"]
    share_first(worker, [tensor])
    assert tensor.tolist() == [1, 1, 1]


def test_a_stop_flag_stays_seen_and_is_looked_for_at_most_five_times_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("transferlib.training.worker.time.monotonic", lambda: now)
    flag = StopFlag(tmp_path / "STOP")
    assert not flag.is_set()
    (tmp_path / "STOP").touch()
    now += 0.1
    assert not flag.is_set()
    now += 0.15
    assert flag.is_set()
    (tmp_path / "STOP").unlink()
    now += 1
    assert flag.is_set()


def test_without_a_stop_flag_nobody_asks_to_stop() -> None:
    assert not StopFlag(None).is_set()
    assert not LocalWorker().should_stop()
