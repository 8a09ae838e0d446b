"""Where a trial stands, as plain values: the JSON half of a checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from transferlib.data.schedule import Position
from transferlib.records import EpochRecord

_START = Position(0, 0)


@dataclass
class EpochSums:
    """Add up the epoch in progress: sums, so that an epoch cut by a restart ends with the same figures."""

    loss: float = 0.0
    """Summed training loss over images and ranks, nat."""
    images: int = 0
    """Over all ranks."""
    seconds: float = 0.0
    """Wall seconds, of work that was saved."""
    train_seconds: float = 0.0
    """Of the train steps alone, waiting for data included."""
    data_wait_s: float = 0.0
    """Of waiting for batches."""
    checkpoint_s: float = 0.0
    """Of writing checkpoints."""


@dataclass(frozen=True)
class BestEpoch:
    """Name the best epoch so far."""

    epoch: int
    val_accuracy: float
    val_loss: float
    position: Position
    """Of the checkpoint that holds its weights and its validation logits."""

    def is_worse_than(self, val_accuracy: float, val_loss: float) -> bool:
        """Return whether a later epoch's result is better: more accurate, or as accurate at a lower loss."""
        return (val_accuracy, -val_loss) > (self.val_accuracy, -self.val_loss)


@dataclass
class TrainingState:
    """Say where a trial stands between two steps."""

    position: Position = _START
    """What comes next."""
    sums: EpochSums = field(default_factory=EpochSums)
    """Of the epoch in progress."""
    records: list[EpochRecord] = field(default_factory=list)
    """One a finished epoch."""
    best: BestEpoch | None = None
    """None before the first finished epoch."""
    peak_memory_bytes: int = 0
    """Over all starts."""
    first_step_s: float = 0.0
    """Seconds from the first start to its first finished step; 0 before that."""

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> TrainingState:
        """Read what `to_plain` returned."""
        best = plain["best"]
        return cls(
            position=Position(*plain["position"]),
            sums=EpochSums(**plain["sums"]),
            records=[EpochRecord(**record) for record in plain["records"]],
            best=None if best is None else BestEpoch(**{**best, "position": Position(*best["position"])}),
            peak_memory_bytes=plain["peak_memory_bytes"],
            first_step_s=plain["first_step_s"],
        )

    def charge_checkpoint(self, seconds: float) -> None:
        """Add the time of writing a checkpoint to its epoch: the one just finished, or else the one in progress."""
        if self.position.step == 0 and self.records:
            last = self.records[-1]
            self.records[-1] = dataclasses.replace(
                last, seconds=last.seconds + seconds, checkpoint_s=last.checkpoint_s + seconds
            )
        else:
            self.sums.seconds += seconds
            self.sums.checkpoint_s += seconds

    @property
    def seconds(self) -> float:
        """Return the wall seconds of all epochs so far."""
        return sum(record.seconds for record in self.records) + self.sums.seconds

    @property
    def images_per_s(self) -> float:
        """Return training images over the seconds of train steps, all epochs so far."""
        images = sum(record.images for record in self.records) + self.sums.images
        seconds = sum(record.train_seconds for record in self.records) + self.sums.train_seconds
        return images / seconds if seconds > 0.0 else 0.0
