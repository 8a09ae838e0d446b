"""Which images each rank sees at which step: known before anything is read, from the manifest and four numbers.

An epoch's order is a permutation of (seed, epoch). It is cut into global steps, each step into one contiguous share a
rank. So every image comes exactly once an epoch over all ranks, all ranks take the same number of steps, and a stream
can begin at any step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transferlib.data.manifest import ImageTable

Phase = Literal["train", "val", "test"]
Rows = npt.NDArray[np.int64]

_MASK_64 = (1 << 64) - 1
# The generator is keyed by (seed, epoch); a counter that starts here keeps the order's numbers apart from all others
# drawn under the same key.
_ORDER_COUNTER = (0, 0, 0, 0x6F72646572)  # "order"


class Position(NamedTuple):
    """Say where a training stands: what comes next."""

    epoch: int
    """From 0."""
    step: int
    """Train step within the epoch, from 0; the number of train steps: trained, validation of this epoch comes next."""


START = Position(0, 0)
PHASES: tuple[Phase, ...] = ("train", "val", "test")
"""A phase's code, where a number is needed, is its index here (as in `names.SPLITS`)."""


@dataclass(frozen=True, eq=False)
class StepShare:
    """Name what one rank does in one step."""

    phase: Phase
    """train, val or test."""
    epoch: int
    """Keys the augmentation; 0 for test."""
    step: int
    """Within the phase, from 0."""
    num_steps: int
    """Steps of the phase, the same on every rank."""
    step_images: int
    """Images of the step over all ranks."""
    offset: int
    """Position of this share's first row within the global step."""
    rows: Rows
    """This rank's rows of the image table, int64 [B]; B may be 0."""


@dataclass(frozen=True)
class Schedule:
    """Lay out the steps of a training.

    Args:
        images: The used images; "row" is an index into this table.
        seed: Of the order of epochs.
        global_batch_size: Most images of a train step over all ranks.
        eval_batch_size: Images of an evaluation step over all ranks; the last one may be smaller.
        num_epochs: Epochs that `steps` goes through.
    """

    images: ImageTable
    seed: int
    global_batch_size: int
    eval_batch_size: int
    num_epochs: int

    def __post_init__(self) -> None:
        for name in ("global_batch_size", "eval_batch_size", "num_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def num_train_steps(self) -> int:
        """Return the train steps of an epoch, ceil(N / global_batch_size)."""
        return -(-len(self.images.rows("train")) // self.global_batch_size)

    def epoch_order(self, epoch: int) -> Rows:
        """Return the train rows in the order of an epoch, int64 [N].

        The permutation is a stable argsort of counter-based random numbers, so it is the same on every machine and for
        every numpy that has Philox (numpy promises raw streams; it does not promise `shuffle`).
        """
        rows = self.images.rows("train")
        return rows[permutation(len(rows), self.seed, epoch)]

    def steps(self, rank: int, world_size: int, start: Position = START) -> Iterator[StepShare]:
        """Yield a rank's shares from a position to the end: an epoch's train steps, then its validation, and so on.

        Args:
            rank: From 0 to world_size - 1.
            world_size: Number of workers.
            start: The first thing to do; validation always starts at its beginning.
        """
        _check_rank(rank, world_size)
        num_steps = self.num_train_steps
        if not (0 <= start.epoch <= self.num_epochs and 0 <= start.step <= num_steps):
            raise ValueError(f"{start} is outside of {self.num_epochs} epochs of {num_steps} steps")
        return self._steps(rank, world_size, start)

    def _steps(self, rank: int, world_size: int, start: Position) -> Iterator[StepShare]:
        num_steps = self.num_train_steps
        for epoch in range(start.epoch, self.num_epochs):
            first = start.step if epoch == start.epoch else 0
            order = self.epoch_order(epoch)
            for step in range(first, num_steps):
                rows = order[len(order) * step // num_steps : len(order) * (step + 1) // num_steps]
                yield _share("train", epoch, step, num_steps, rows, rank, world_size)
            yield from self._in_order("val", epoch, rank, world_size)

    def evaluation(self, split: Phase, rank: int, world_size: int) -> Iterator[StepShare]:
        """Yield a rank's shares of one pass over a split in row order, nothing padded, nothing dropped.

        Args:
            split: train, val or test; seen without augmentation unless it is train.
            rank: From 0 to world_size - 1.
            world_size: Number of workers.
        """
        _check_rank(rank, world_size)
        return self._in_order(split, 0, rank, world_size)

    def _in_order(self, phase: Phase, epoch: int, rank: int, world_size: int) -> Iterator[StepShare]:
        order = self.images.rows(phase)
        num_steps = -(-len(order) // self.eval_batch_size)
        for step in range(num_steps):
            rows = order[step * self.eval_batch_size : (step + 1) * self.eval_batch_size]
            yield _share(phase, epoch, step, num_steps, rows, rank, world_size)


def permutation(length: int, seed: int, epoch: int) -> Rows:
    """Return the permutation of an epoch, int64 [length], from counter-based random numbers keyed by (seed, epoch)."""
    key = np.array([seed & _MASK_64, epoch & _MASK_64], dtype=np.uint64)
    generator = np.random.Philox(key=key, counter=np.array(_ORDER_COUNTER, dtype=np.uint64))
    return np.argsort(generator.random_raw(length), kind="stable")


def _share(phase: Phase, epoch: int, step: int, num_steps: int, rows: Rows, rank: int, world_size: int) -> StepShare:
    first, last = (len(rows) * r // world_size for r in (rank, rank + 1))
    return StepShare(phase, epoch, step, num_steps, len(rows), first, rows[first:last])


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is outside of world_size {world_size}")
