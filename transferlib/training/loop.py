"""The loop: epochs of train steps and validation, from any position to the end, the same on one worker or many."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from transferlib.data.batches import Batch
from transferlib.data.schedule import Phase, Position, Rows, Schedule
from transferlib.errors import DataError, NonFiniteLossError, StoppedError
from transferlib.evaluation.metrics import selection_score
from transferlib.records import EpochRecord
from transferlib.spec import DEFAULT_CLIP_NORM, TrainingSpec
from transferlib.training.learner import Learner
from transferlib.training.loss import mean_nll
from transferlib.training.memory import peak_memory_bytes
from transferlib.training.network import Logits, gather_logits
from transferlib.training.observer import Observer
from transferlib.training.signals import StepSignal, StepSignals
from transferlib.training.state import BestEpoch, EpochSums, TrainingState
from transferlib.training.worker import Worker, share_first


@dataclass
class Clock:
    """Say how long it is since something."""

    _since: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        """Return the seconds since the clock was made or last lapped."""
        return time.perf_counter() - self._since

    def lap(self) -> float:
        """Return the seconds, and start over."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return seconds


@dataclass
class Loop:
    """Train a learner through a schedule.

    Between two steps everything that matters is in `learner` and `state`: what is saved there, at any step, is what
    training goes on from, bit for bit.
    """

    learner: Learner
    """Takes the steps."""
    state: TrainingState
    """Where training stands; moves with it."""
    schedule: Schedule
    """Which images come at which step."""
    worker: Worker
    """This rank."""
    observer: Observer
    """Shows and saves."""
    spec: TrainingSpec
    """Epochs, patience, seconds between checkpoints."""
    metric: str
    """Judges the epochs; one of `names.METRICS`."""
    since_start: Clock
    """Runs since the trial began in this process."""
    _since_tick: Clock = field(default_factory=Clock)
    _since_save: Clock = field(default_factory=Clock)
    _stop: bool = False
    _save: bool = False

    def __post_init__(self) -> None:
        self._signals = StepSignals.for_device(self.worker)

    def run(self, batches: Iterator[Batch]) -> Iterator[EpochRecord]:
        """Yield a record an epoch, once it is saved, until all epochs are done or patience is at its end.

        Args:
            batches: Of the schedule's steps from the state's position on.

        Raises:
            NonFiniteLossError: With epoch, step and rate.
            StoppedError: A rank was asked to stop; every finished step is saved.
            DataError: Validation did not see exactly the manifest's images.
        """
        while not self._is_finished():
            self._since_tick.lap()  # what others do with a record is not the next epoch's time
            self._train(batches)
            logits = self._validate(batches)
            record = self._finish_epoch(logits)
            self.worker.report(record)
            yield record

    def _is_finished(self) -> bool:
        position, best, patience = self.state.position, self.state.best, self.spec.early_stopping_patience
        if position.epoch >= self.spec.epochs:
            return True
        is_between_epochs = position.step == 0
        epochs_since_best = position.epoch - 1 - best.epoch if best is not None else 0
        return is_between_epochs and 0 < patience <= epochs_since_best

    def _train(self, batches: Iterator[Batch]) -> None:
        """Take the epoch's train steps from the state's position on."""
        epoch, first = self.state.position
        self.learner.train_mode()
        for step in range(first, self.schedule.num_train_steps):
            batch = self._next(batches, "train", step)
            loss_sum = self.learner.train_step(batch, self.worker.rank, self.worker.world_size)
            self.state.position = Position(epoch, step + 1)
            self._exchange(step, batch.share.step_images, loss_sum)
            self._tick("train")
            if self._stop or self._save:
                self._save_position()
        self._hear(self._signals.drain())
        self._tick("train")

    def _validate(self, batches: Iterator[Batch]) -> Logits:
        """Return the logits of all validation images in row order, float32 [N, K], the same on every rank."""
        # As DDP does before each train step: what is measured, and saved, is the first rank's network.
        share_first(self.worker, self.learner.changing_buffers())
        self.learner.eval_mode()
        images = self.schedule.images
        rows = images.rows("val")
        no_loss, totals = torch.zeros((), device=self.worker.device), self.state.totals.val
        predicted: list[tuple[Rows, Tensor]] = []
        for step in range(math.ceil(len(rows) / self.schedule.eval_batch_size)):
            batch = self._next(batches, "val", step)
            predicted.append((batch.share.rows, self.learner.network.predict(batch)))
            self._exchange(step, 0, no_loss)
            self._tick("val")
            totals.steps += 1
            totals.images += batch.share.step_images
            self.observer.validation_step_done(self.state)
            if self._stop:
                self._save_position()
        self._hear(self._signals.drain())
        self._tick("val")
        return gather_logits(self.worker, predicted, rows, len(images.classes))

    def _finish_epoch(self, logits: Logits) -> EpochRecord:
        """Judge the epoch, save it and return its record."""
        state, images = self.state, self.schedule.images
        epoch, labels = state.position.epoch, images.labels[images.rows("val")]
        val_loss, val_accuracy = mean_nll(logits, labels), float((logits.argmax(axis=1) == labels).mean())
        if not math.isfinite(val_loss):
            raise self._non_finite(val_loss, "Validation loss", self.schedule.num_train_steps - 1)
        val_score = selection_score(self.metric, labels, logits)
        is_best = state.best is None or state.best.is_worse_than(val_score, val_loss)
        state.peak_memory_bytes = max(state.peak_memory_bytes, peak_memory_bytes(self.worker.device))
        state.position = Position(epoch + 1, 0)
        tensors = self.learner.tensors()
        if is_best:
            state.best = BestEpoch(epoch, val_accuracy, val_loss, state.position, val_score)
            tensors["validation"] = {"logits": torch.from_numpy(logits)}
        self._tick()
        sums, state.sums = state.sums, EpochSums()
        record = EpochRecord(
            epoch=epoch,
            train_loss=sums.loss / sums.images,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            lr=self.learner.head_lr(epoch, self.schedule.num_train_steps - 1),
            images=sums.images,
            seconds=sums.seconds,
            train_seconds=sums.train_seconds,
            data_wait_s=sums.data_wait_s,
            checkpoint_s=sums.checkpoint_s,
            peak_memory_bytes=state.peak_memory_bytes,
            is_best=is_best,
        )
        state.records.append(record)
        self._write_checkpoint(tensors)
        self.observer.epoch_done(state)
        return state.records[-1]

    def _next(self, batches: Iterator[Batch], phase: Phase, step: int) -> Batch:
        """Wait for a batch, which must be the one that comes next."""
        waiting = Clock()
        batch = next(batches, None)
        waited = waiting.seconds()
        self.state.sums.data_wait_s += waited
        self.state.totals.of(phase).data_wait_s += waited
        expected = (phase, self.state.position.epoch, step)
        got = None if batch is None else (batch.share.phase, batch.share.epoch, batch.share.step)
        if batch is None or got != expected:
            raise DataError(
                f"The stream delivered {got or 'nothing'} where {expected} comes next (phase, epoch, step)."
            )
        return batch

    def _exchange(self, step: int, images: int, loss_sum: Tensor) -> None:
        """Tell the other ranks of a step and hear of it, or of the one before."""
        is_due = self._since_save.seconds() >= self.spec.checkpoint_every_s
        self._hear(self._signals.exchange(step, images, loss_sum, stop=self.worker.should_stop(), save=is_due))

    def _hear(self, signals: Sequence[StepSignal]) -> None:
        """Take in what all ranks know of some steps."""
        for signal in signals:
            self._stop |= signal.stop
            self._save |= signal.save
            if signal.images == 0:
                continue
            if not math.isfinite(signal.loss_sum):
                raise self._non_finite(signal.loss_sum, "Training loss", signal.step)
            self.state.sums.loss += signal.loss_sum
            self.state.sums.images += signal.images
            self.state.totals.train.images += signal.images
            self.state.totals.train.steps += 1
            self.state.first_step_s = self.state.first_step_s or self.since_start.seconds()
            self.observer.step_done(self.state, signal.loss_sum / signal.images)

    def _save_position(self) -> None:
        """Save between two steps; then stop, if that is what was asked for."""
        self._hear(self._signals.drain())
        self._write_checkpoint(self.learner.tensors())
        if self._stop:
            epoch, step = self.state.position
            raise StoppedError(f"Stopped in epoch {epoch + 1} after {step} of {self.schedule.num_train_steps} steps.")

    def _write_checkpoint(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        self.observer.save(self.state, tensors)
        self._save = False
        self._since_save.lap()
        self._since_tick.lap()  # the state has been charged with what saving took

    def _tick(self, phase: Phase | None = None) -> None:
        """Add the time since the last tick to the epoch's and, where it went into steps, to their phase's."""
        seconds = self._since_tick.lap()
        self.state.sums.seconds += seconds
        if phase is not None:
            self.state.totals.of(phase).seconds += seconds
        if phase == "train":
            self.state.sums.train_seconds += seconds

    def _non_finite(self, loss: float, what: str, step: int) -> NonFiniteLossError:
        epoch = self.state.position.epoch
        rate, clip = self.learner.head_lr(epoch, step), self.spec.gradient_clip_norm
        if clip > 0.0:
            clipping = f"--gradient-clip-norm under {clip:g}"
        else:
            clipping = f"gradient clipping, which is off (--gradient-clip-norm {DEFAULT_CLIP_NORM:g})"
        return NonFiniteLossError(
            f"{what} is {loss} in epoch {epoch} at step {step} (both from 0), rate {rate:g}. "
            f"Use smaller rates (--base-lr, --lr-candidates), a longer warm-up (--warmup-epochs), or {clipping}."
        )
