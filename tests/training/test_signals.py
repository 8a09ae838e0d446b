from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from transferlib.training.signals import StepSignals
from transferlib.training.worker import LocalWorker


class Twin(LocalWorker):
    """Be one of two ranks that always say the same, but for a stop that only the other is asked for."""

    world_size = 2

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor * 2 + torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)


def exchange(signals: StepSignals, step: int, loss: float = 1.5) -> list[int]:
    return [s.step for s in signals.exchange(step, 4, torch.tensor(loss), stop=False, save=False)]


def test_ranks_hear_the_summed_loss_and_what_any_of_them_was_asked_for() -> None:
    (signal,) = StepSignals(Twin(), lag=0).exchange(3, 8, torch.tensor(1.5), stop=False, save=False)
    assert (signal.step, signal.images, signal.loss_sum, signal.stop, signal.save) == (3, 8, 3.0, True, False)
    (signal,) = StepSignals(LocalWorker(), lag=0).exchange(0, 8, torch.tensor(1.5), stop=False, save=True)
    assert (signal.stop, signal.save) == (False, True)


def test_a_lag_delays_signals_and_loses_none() -> None:
    signals = StepSignals(LocalWorker(), lag=1)
    assert [exchange(signals, step) for step in range(3)] == [[], [0], [1]]
    assert [signal.step for signal in signals.drain()] == [2]
    assert signals.drain() == []


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stays_so(loss: float) -> None:
    (signal,) = StepSignals(LocalWorker(), lag=0).exchange(0, 1, torch.tensor(loss), stop=False, save=False)
    assert not math.isfinite(signal.loss_sum)
    assert not signal.stop


def test_a_processor_is_not_waited_for_and_a_gpu_is_one_step_ahead() -> None:
    assert [exchange(StepSignals.for_device(LocalWorker()), 0)] == [[0]]
    assert StepSignals.for_device(LocalWorker("cuda"))._lag == 1
