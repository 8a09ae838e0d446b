"""The worker seam: what the loop knows of the processes it runs in. One process is an implementation, never an `if`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from transferlib.records import EpochRecord
from transferlib.training.batchnorm import synchronise_batchnorm

T = TypeVar("T")

_STOP_POLL_S = 0.2


class Worker(Protocol):
    """Be one of `world_size` processes that train one trial. All of them make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """Return this process's number, from 0."""
        ...

    @property
    def world_size(self) -> int:
        """Return the number of processes."""
        ...

    @property
    def device(self) -> torch.device:
        """Return where this process computes."""
        ...

    def prepare_model(self, model: nn.Module, *, sync_batchnorm: bool) -> nn.Module:
        """Return a module whose backward averages gradients over all ranks; parameters stay the given model's own.

        Args:
            model: On `device`, `requires_grad` and train mode set: what is wrapped is what is trained.
            sync_batchnorm: Whether BatchNorm layers in train mode take their statistics over all ranks; they are then
                replaced within the model, under the same names and around the same tensors.
        """
        ...

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks, the same on each; the argument may be overwritten."""
        ...

    def gather(self, value: T) -> list[T]:
        """Return every rank's value in rank order, on every rank.

        Args:
            value: Numpy arrays, plain values and containers of them.
        """
        ...

    def barrier(self) -> None:
        """Wait until every rank is here."""
        ...

    def report(self, record: EpochRecord) -> None:
        """Tell whoever runs the workers that an epoch is done and saved."""
        ...

    def should_stop(self) -> bool:
        """Return whether this rank was asked to stop; cheap. The loop makes the ranks agree."""
        ...


@torch.no_grad()
def share_first(worker: Worker, tensors: Sequence[Tensor]) -> None:
    """Set every rank's tensors, in place, to the first rank's.

    Args:
        worker: This rank.
        tensors: Floating point, of one dtype, on the worker's device; the same shapes on every rank.
    """
    if not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    shared = worker.all_reduce(flat if worker.rank == 0 else torch.zeros_like(flat))
    for tensor, values in zip(tensors, torch.split(shared, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))


class StopFlag:
    """Watch for a file that asks to stop.

    Args:
        path: The file; None: never asked.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._is_set = False
        self._looked_at = float("-inf")

    def is_set(self) -> bool:
        """Return whether the file was there; it is looked for at most five times a second, and once seen stays seen."""
        now = time.monotonic()
        if self._path is not None and not self._is_set and now - self._looked_at >= _STOP_POLL_S:
            self._looked_at = now
            self._is_set = self._path.exists()
        return self._is_set


class LocalWorker:
    """Be the only process of a trial.

    Args:
        device: Where to compute.
        stop_flag: A file whose existence asks to stop.
    """

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device | str = "cpu", stop_flag: Path | None = None) -> None:
        self.device = torch.device(device)
        self._stop_flag = StopFlag(stop_flag)

    def prepare_model(self, model: nn.Module, *, sync_batchnorm: bool) -> nn.Module:
        """Return the model, untouched: its statistics are over the whole step."""
        return model

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the tensor."""
        return tensor

    def gather(self, value: T) -> list[T]:
        """Return the value alone."""
        return [value]

    def barrier(self) -> None:
        """Return at once."""

    def report(self, record: EpochRecord) -> None:
        """Tell nobody; a subclass may."""

    def should_stop(self) -> bool:
        """Return whether the stop flag's file exists."""
        return self._stop_flag.is_set()


class ProcessGroupWorker:
    """Be one rank of torch's default process group, which whoever started the processes has set up.

    Args:
        device: Where to compute.
        stop_flag: A file whose existence asks to stop.
    """

    def __init__(self, device: torch.device | str = "cpu", stop_flag: Path | None = None) -> None:
        self.device = torch.device(device)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._stop_flag = StopFlag(stop_flag)

    def prepare_model(self, model: nn.Module, *, sync_batchnorm: bool) -> nn.Module:
        """Wrap the model in DistributedDataParallel, which also shares the first rank's buffers before each step."""
        if sync_batchnorm:
            synchronise_batchnorm(model, self.all_reduce, self.device)
        device_ids = [self.device] if self.device.type == "cuda" else None
        parallel = DistributedDataParallel(model, device_ids=device_ids, gradient_as_bucket_view=True)
        _settle_buckets(parallel, self.device)
        return parallel

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks, written into the argument."""
        dist.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """Return every rank's value in rank order, on every rank."""
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return cast("list[T]", values)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.all_reduce(torch.zeros(1, device=self.device)).item()

    def report(self, record: EpochRecord) -> None:
        """Tell nobody; a subclass does."""

    def should_stop(self) -> bool:
        """Return whether the stop flag's file exists, as this rank sees it."""
        return self._stop_flag.is_set()


def _settle_buckets(parallel: DistributedDataParallel, device: torch.device) -> None:
    """Make DDP lay out its buckets before the first step, which it does in the order that gradients first come in.

    Over three ranks or more, the order in which an element is added up depends on its place in a bucket. Without this
    the first step after a restart would be added up as an undisturbed training's very first, in other last bits.
    """
    buffers = [(buffer, buffer.clone()) for buffer in parallel.module.buffers()]
    dtype = next(parallel.module.parameters()).dtype
    parallel(torch.zeros(2, 3, 64, 64, device=device, dtype=dtype)).sum().backward()
    parallel.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
