"""What the ranks tell each other at every step, in one small sum: the loss, and whether to stop or to save.

All ranks read the same sums, so they agree without asking. On a GPU a sum is read one step late: the host is then
never waited for, and a value still belongs to the step that sent it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from transferlib.training.worker import Worker


@dataclass(frozen=True)
class StepSignal:
    """Hold what all ranks know of one step."""

    step: int
    """Within its phase."""
    images: int
    """Over all ranks."""
    loss_sum: float
    """Over all images and ranks, nat."""
    stop: bool
    """Whether any rank was asked to stop."""
    save: bool
    """Whether any rank finds a checkpoint due."""


@dataclass(frozen=True)
class _Sent:
    step: int
    images: int
    sums: Tensor
    arrived: torch.cuda.Event | None


class StepSignals:
    """Exchange one signal a step.

    Args:
        worker: Adds over ranks.
        lag: Signals that may be under way; 0: each one is read at its own step.
    """

    def __init__(self, worker: Worker, lag: int) -> None:
        self._worker = worker
        self._lag = lag
        self._under_way: deque[_Sent] = deque()

    @classmethod
    def for_device(cls, worker: Worker) -> StepSignals:
        """Return signals with the lag that suits the worker's device."""
        return cls(worker, lag=1 if worker.device.type == "cuda" else 0)

    def exchange(self, step: int, images: int, loss_sum: Tensor, *, stop: bool, save: bool) -> list[StepSignal]:
        """Send this rank's part of a step's signal; return the signals that are known by now, in order.

        Args:
            step: Within its phase.
            images: Of the step, over all ranks.
            loss_sum: Over this rank's images, scalar, on the device.
            stop: Whether this rank was asked to stop.
            save: Whether this rank finds a checkpoint due.
        """
        sums = torch.zeros(3, dtype=torch.float64, device=loss_sum.device)
        sums[0] = loss_sum.detach()
        # Filling a slice launches a kernel; a tensor made from Python values would be copied, and waited for.
        sums[1].fill_(float(stop))
        sums[2].fill_(float(save))
        self._under_way.append(_Sent(step, images, *_to_host(self._worker.all_reduce(sums))))
        return self._read(self._lag)

    def drain(self) -> list[StepSignal]:
        """Wait for all signals under way and return them."""
        return self._read(0)

    def _read(self, most_left: int) -> list[StepSignal]:
        known = []
        while len(self._under_way) > most_left:
            sent = self._under_way.popleft()
            if sent.arrived is not None:
                sent.arrived.synchronize()  # device sync, up to this signal's copy
            loss_sum, stop, save = sent.sums.tolist()
            known.append(StepSignal(sent.step, sent.images, loss_sum, stop > 0.0, save > 0.0))
        return known


def _to_host(sums: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    if sums.device.type != "cuda":
        return sums, None
    host = torch.empty(sums.shape, dtype=sums.dtype, pin_memory=True)
    host.copy_(sums, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return host, arrived
