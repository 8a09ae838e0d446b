"""The observer seam: what a loop tells while it runs. The first rank's records it, the others' do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from transferlib.records import TrialResult
from transferlib.training.learner import Learner
from transferlib.training.network import Logits
from transferlib.training.state import TrainingState


class Observer(Protocol):
    """See a trial go by, and keep what should be kept of it."""

    def started(self, state: TrainingState) -> None:
        """Training begins, or goes on, at a state."""
        ...

    def step_done(self, state: TrainingState, loss: float) -> None:
        """Show a train step.

        Args:
            state: After it.
            loss: Mean over the step's images, nat.
        """
        ...

    def validation_step_done(self, state: TrainingState) -> None:
        """Show a step of validation.

        Args:
            state: After it.
        """
        ...

    def save(self, state: TrainingState, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Keep a checkpoint; the time it takes is charged to the state.

        Args:
            state: Whose position the checkpoint is of.
            tensors: What training changed, by file.
        """
        ...

    def epoch_done(self, state: TrainingState) -> None:
        """Show an epoch, which is saved."""
        ...

    def publish(self, state: TrainingState, learner: Learner) -> str:
        """Leave the best epoch's whole network and its validation predictions.

        Args:
            state: At the trial's end.
            learner: Whose network is set to the best epoch's weights.

        Returns:
            The sha256 of the network's state dict.
        """
        ...

    def save_predictions(self, split: str, logits: Logits) -> None:
        """Leave predictions on a split.

        Args:
            split: train, val or test.
            logits: Of its images in row order, float32 [N, K].
        """
        ...

    def ended(self, state: TrainingState, result: TrialResult) -> None:
        """Record how the trial ended: the last thing written."""
        ...

    def tidy(self) -> None:
        """Remove what a finished trial does not need any more."""
        ...


class SilentObserver:
    """Do nothing."""

    def started(self, state: TrainingState) -> None: ...

    def step_done(self, state: TrainingState, loss: float) -> None: ...

    def validation_step_done(self, state: TrainingState) -> None: ...

    def save(self, state: TrainingState, tensors: Mapping[str, Mapping[str, Tensor]]) -> None: ...

    def epoch_done(self, state: TrainingState) -> None: ...

    def publish(self, state: TrainingState, learner: Learner) -> str:
        return ""

    def save_predictions(self, split: str, logits: Logits) -> None: ...

    def ended(self, state: TrainingState, result: TrialResult) -> None: ...

    def tidy(self) -> None: ...
