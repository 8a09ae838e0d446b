"""Where a trial stands, as plain values: the JSON half of a checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from transferlib.data.schedule import Position
from transferlib.records import EpochRecord, PhaseTotals, TrialTotals

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
    val_score: float | None = None
    """The comparison's metric on validation, negated where lower is better; None: written when it was accuracy."""

    def is_worse_than(self, val_score: float, val_loss: float) -> bool:
        """Return whether a later epoch's result is better: a higher score, or the same at a lower loss."""
        before = self.val_accuracy if self.val_score is None else self.val_score
        return (val_score, -val_loss) > (before, -self.val_loss)


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
    totals: TrialTotals = field(default_factory=TrialTotals)
    """Over all starts; the first rank's are kept."""

    def to_plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> TrainingState:
        """Read what `to_plain` returned, now or in a version that had no totals: they then begin at zero."""
        best = plain["best"]
        return cls(
            position=Position(*plain["position"]),
            sums=EpochSums(**plain["sums"]),
            records=[EpochRecord(**record) for record in plain["records"]],
            best=None if best is None else BestEpoch(**{**best, "position": Position(*best["position"])}),
            peak_memory_bytes=plain["peak_memory_bytes"],
            first_step_s=plain["first_step_s"],
            totals=TrialTotals.from_plain(plain["totals"]) if "totals" in plain else TrialTotals(),
        )

    def charge_checkpoint(self, seconds: float, num_bytes: int = 0) -> None:
        """Add what a checkpoint took to the totals and to its epoch: the one just finished, or the one in progress.

        Args:
            seconds: Of writing it.
            num_bytes: Of its tensors.
        """
        self.totals.checkpoint_s += seconds
        self.totals.checkpoint_bytes += num_bytes
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


def take_up_totals(saved: TrialTotals, shown: TrialTotals | None) -> TrialTotals:
    """Return the totals that a trial goes on with, so that none of them ever falls.

    Work that a lost process did after its last checkpoint stays counted, and its train steps count as steps to be done
    again: train steps less redone ones are then again those that the checkpoint has behind it.

    Args:
        saved: Of the checkpoint that training goes on from.
        shown: The last that the process before showed, as far as it got; None: nothing is known of it.
    """
    if shown is None:
        return saved
    totals = TrialTotals(
        train=_larger(saved.train, shown.train),
        val=_larger(saved.val, shown.val),
        checkpoint_s=max(saved.checkpoint_s, shown.checkpoint_s),
        checkpoint_bytes=max(saved.checkpoint_bytes, shown.checkpoint_bytes),
    )
    standing = saved.train.steps - saved.steps_redone
    totals.steps_redone = totals.train.steps - standing
    return totals


def _larger(one: PhaseTotals, other: PhaseTotals) -> PhaseTotals:
    return PhaseTotals(*(max(pair) for pair in zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)))
