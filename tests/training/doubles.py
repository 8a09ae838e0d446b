"""Doubles that end a trial at a chosen moment."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from transferlib.data.batches import Batch, BatchStream
from transferlib.data.schedule import StepShare
from transferlib.training.worker import LocalWorker


class KilledError(Exception):
    """Stand for a process that dies."""


@dataclass(frozen=True)
class DyingStream:
    """Deliver some batches, then die."""

    stream: BatchStream
    num_batches: int

    def open(self, steps: Iterator[StepShare]) -> Generator[Batch, None, None]:
        for index, batch in enumerate(self.stream.open(steps)):
            if index == self.num_batches:
                raise KilledError
            yield batch


class StoppedWorker(LocalWorker):
    """Be asked to stop at the n-th look, from 0: the loop looks once before it begins, then at every step."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def should_stop(self) -> bool:
        self.left -= 1
        return self.left < 0
