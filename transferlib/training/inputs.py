"""Everything that one trial is trained on, given by whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass

from transferlib.data.batches import BatchStream
from transferlib.data.images import ImageTable
from transferlib.data.schedule import Schedule
from transferlib.models.backbones import stage_names
from transferlib.models.weights import DEFAULT_MEAN, DEFAULT_STD, RGB, SourceWeights
from transferlib.records import TrialSpec
from transferlib.runs import TrialFolder
from transferlib.spec import JobSpec
from transferlib.strategies import get_strategy

_EVAL_BATCH_FACTOR = 2
"""Evaluation keeps no activations for a backward pass, so larger steps fit where a train step does."""


@dataclass(frozen=True)
class TrialInputs:
    """Hold what `train_trial` needs; the same for the same trial on every rank and at every start."""

    job: JobSpec
    """Of the run; what `precision: auto` means is resolved by whoever saves the run."""
    trial: TrialSpec
    """Which arm, seed and rate."""
    folder: TrialFolder
    """Where all of it is written; seen by every rank. It exists."""
    images: ImageTable
    """The manifest's used images."""
    source: SourceWeights | None
    """The run's source weights; None: there are none."""
    stream: BatchStream
    """Makes the batches."""
    threads: int
    """torch threads of this rank."""
    run_id: str
    """Names the run in predictions."""

    @property
    def used_source(self) -> SourceWeights | None:
        """Return the weights that the trial starts from; None for a strategy that uses none."""
        return self.source if get_strategy(self.trial.strategy).uses_source else None

    @property
    def source_sha256(self) -> str:
        """Return what identifies the frozen tensors; empty where the trial uses no source."""
        return "" if self.used_source is None else self.used_source.sha256

    @property
    def mean(self) -> RGB:
        """Return the channel means that images are normalised with, of values 0 to 1."""
        return DEFAULT_MEAN if self.used_source is None else self.used_source.mean

    @property
    def std(self) -> RGB:
        """Return the channel standard deviations that images are normalised with, of values 0 to 1."""
        return DEFAULT_STD if self.used_source is None else self.used_source.std

    def stage_factors(self) -> dict[str, float]:
        """Return each stage's factor of the head's rate; 0 is frozen."""
        strategy = get_strategy(self.trial.strategy)
        return strategy.stage_factors(stage_names(self.trial.architecture), self.job.strategies)

    def schedule(self) -> Schedule:
        """Return which images come at which step."""
        training = self.job.training
        return Schedule(
            self.images,
            seed=self.trial.seed,
            global_batch_size=training.global_batch_size,
            eval_batch_size=_EVAL_BATCH_FACTOR * training.global_batch_size,
            num_epochs=training.epochs,
        )

    def identity(self) -> dict[str, object]:
        """Return what a checkpoint must agree on to serve this trial, as plain values."""
        return {
            "architecture": self.trial.architecture,
            "strategy": self.trial.strategy,
            "seed": self.trial.seed,
            **({"fold": self.trial.fold} if self.trial.fold else {}),
            "lr": self.trial.lr,
            "source_sha256": self.source_sha256,
            "classes": list(self.images.classes),
            "images": self.images.fingerprint,
        }
