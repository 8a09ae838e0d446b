"""Ranks that are threads of one process: all that a worker does but DDP's own bookkeeping."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

from transferlib.training.batchnorm import synchronise_batchnorm
from transferlib.training.worker import LocalWorker

R = TypeVar("R")


class ThreadWorker(LocalWorker):
    """Be one of several ranks; gradients are averaged as they are accumulated."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        super().__init__()
        self.rank, self.world_size = rank, meeting.world_size
        self._meeting = meeting

    def prepare_model(self, model: nn.Module, *, sync_batchnorm: bool) -> nn.Module:
        if sync_batchnorm:
            synchronise_batchnorm(model, self.all_reduce, self.device)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient: self.all_reduce(gradient) / self.world_size)
        return model

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return self._meeting.sum(self.rank, tensor)


class Meeting:
    """Add up what all ranks bring."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._barrier = threading.Barrier(world_size, timeout=60)
        self._brought: dict[int, Tensor] = {}

    def sum(self, rank: int, tensor: Tensor) -> Tensor:
        self._brought[rank] = tensor.clone()
        self._barrier.wait()
        total = torch.stack([self._brought[other] for other in range(self.world_size)]).sum(0)
        self._barrier.wait()
        return total


def on_threads(world_size: int, call: Callable[[ThreadWorker], R]) -> list[R]:
    """Return what a function returns on each rank."""
    meeting = Meeting(world_size)
    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(lambda rank: call(ThreadWorker(rank, meeting)), range(world_size)))
