"""The learning rate as a pure function of the step: warm-up, then a cosine. No state, so nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MOST_WARMUP = 5
"""Warm-up takes at most one step in this many."""


@dataclass(frozen=True)
class LrSchedule:
    """Scale every rate of a training by one factor a step.

    Source: linear warm-up, Goyal et al. 2017, section 2.2; cosine without restarts, Loshchilov and Hutter 2017, eq. 5.
    """

    num_steps: int
    """Steps of the whole training."""
    num_warmup_steps: int
    """Steps of the linear warm-up before the cosine."""

    @classmethod
    def from_epochs(cls, epochs: int, warmup_epochs: float, steps_per_epoch: int) -> LrSchedule:
        """Return the schedule of a training of so many epochs.

        Args:
            epochs: Most epochs; early stopping cuts the cosine, it does not squeeze it.
            warmup_epochs: May be a fraction; cut to a fifth of the training.
            steps_per_epoch: Train steps of an epoch.
        """
        num_steps = epochs * steps_per_epoch
        return cls(num_steps, min(round(warmup_epochs * steps_per_epoch), num_steps // _MOST_WARMUP))

    def factor(self, step: int) -> float:
        """Return what the peak rates are multiplied by, over 0 and up to 1.

        Args:
            step: Of the whole training, from 0.
        """
        if step < self.num_warmup_steps:
            return (step + 1) / self.num_warmup_steps
        progress = (step - self.num_warmup_steps) / (self.num_steps - self.num_warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * progress))
