"""The loop: epochs of train steps and validation, from any position to the end, the same on one worker or many."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from transferlib.data.batches import Batch
from transferlib.data.schedule import Position, Rows, Schedule
from transferlib.errors import NonFiniteLossError, StoppedError
from transferlib.records import EpochRecord, TrialSpec
from transferlib.spec import TrainingSpec
from transferlib.training.learner import Learner
from transferlib.training.loss import mean_nll
from transferlib.training.memory import peak_memory_bytes
from transferlib.training.network import Logits, gather_logits
from transferlib.training.observer import Observer
from transferlib.training.signals import StepSignal, StepSignals
from transferlib.training.state import BestEpoch, EpochSums, TrialState
from transferlib.training.worker import Worker


@dataclass
class Clock:
    """Say how long it is since something."""

    since: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        """Return the seconds since the clock was started or last lapped."""
        return time.perf_counter() - self.since

    def lap(self) -> float:
        """Return the seconds, and start over."""
        now = time.perf_counter()
        seconds, self.since = now - self.since, now
        return seconds


class Loop:
    """Train a learner through a schedule.

    Args:
        learner: Takes the steps.
        state: Where to begin; it moves as training goes on.
        schedule: Which images come at which step.
        worker: This rank.
        observer: Shows and saves.
        trial: Names the rate in errors.
        spec: Epochs, patience, seconds between checkpoints.
        since_start: Runs since the trial began in this process.
    """

    def __init__(
        self,
        learner: Learner,
        state: TrialState,
        schedule: Schedule,
        worker: Worker,
        observer: Observer,
        trial: TrialSpec,
        spec: TrainingSpec,
        since_start: Clock,
    ) -> None:
        self._learner, self._state, self._schedule = learner, state, schedule
        self._worker, self._observer = worker, observer
        self._trial, self._spec = trial, spec
        self._signals = StepSignals.for_device(worker)
        self._stop = self._save = False
        self._since_start, self._since_step, self._since_save = since_start, Clock(), Clock()

    def run(self, batches: Iterator[Batch]) -> Iterator[EpochRecord]:
        """Yield a record an epoch, once it is saved, until all epochs are done or patience is at its end.

        Args:
            batches: Of the schedule's steps from the state's position on.

        Raises:
            NonFiniteLossError: With epoch, step and rate.
            StoppedError: A rank was asked to stop; every finished step is saved.
            DataError: Validation did not see exactly the manifest's images.
        """
        self._since_step.lap()
        while not self._is_finished():
            self._train(batches)
            logits = self._validate(batches)
            record = self._finish_epoch(logits)
            self._worker.report(record)
            yield record

    def _is_finished(self) -> bool:
        position, best, patience = self._state.position, self._state.best, self._spec.early_stopping_patience
        if position.epoch >= self._spec.epochs:
            return True
        is_between_epochs = position.step == 0
        epochs_since_best = position.epoch - 1 - best.epoch if best is not None else 0
        return is_between_epochs and patience > 0 and epochs_since_best >= patience

    def _train(self, batches: Iterator[Batch]) -> None:
        """Take the epoch's train steps from the state's position on."""
        epoch, first = self._state.position
        self._learner.train_mode()
        for step in range(first, self._schedule.num_train_steps):
            batch = self._next(batches, "train", step)
            loss_sum = self._learner.train_step(batch, self._worker.rank, self._worker.world_size)
            self._state.position = Position(epoch, step + 1)
            self._exchange(batch, loss_sum)
            self._state.sums.train_seconds += self._lap()
            if self._stop or self._save:
                self._save_position()
        self._hear(self._signals.drain())
        self._state.sums.train_seconds += self._lap()

    def _validate(self, batches: Iterator[Batch]) -> Logits:
        """Return the logits of all validation images in row order, float32 [N, K], the same on every rank."""
        self._share_buffers()
        self._learner.eval_mode()
        predicted: list[tuple[Rows, Tensor]] = []
        no_loss = torch.zeros((), device=self._worker.device)
        for step in range(self._schedule.num_steps("val")):
            batch = self._next(batches, "val", step)
            predicted.append((batch.share.rows, self._learner.network.predict(batch)))
            self._exchange(batch, no_loss)
            self._lap()
            if self._stop:
                self._save_position()
        self._hear(self._signals.drain())
        images = self._schedule.images
        logits = gather_logits(self._worker, predicted, images.rows("val"), len(images.classes))
        self._lap()
        return logits
