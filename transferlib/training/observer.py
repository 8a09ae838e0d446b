"""What a trial shows and keeps while it runs. The first rank records; the others have an observer that does nothing."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import time
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from transferlib import records
from transferlib.records import EpochRecord, TrialProgress, TrialResult
from transferlib.runs import TrialFolder, write_atomic
from transferlib.training.checkpoint import CheckpointStore
from transferlib.training.state import EpochSums, TrialState

log = logging.getLogger("transferlib.training")

_PROGRESS_EVERY_S = 0.5


class Observer(Protocol):
    """See a trial go by."""

    def started(self, state: TrialState) -> None:
        """Training begins, or goes on, at a state."""
        ...

    def step_done(self, state: TrialState, loss: float) -> None:
        """Show a train step.

        Args:
            state: After it.
            loss: Mean over the step's images, nat.
        """
        ...

    def save(self, state: TrialState, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Keep a checkpoint; the time it takes is charged to the state."""
        ...

    def epoch_done(self, state: TrialState) -> None:
        """Show an epoch, which is saved."""
        ...

    def ended(self, state: TrialState, result: TrialResult) -> None:
        """Record how the trial ended; the last thing written."""
        ...


class SilentObserver:
    """Do nothing."""

    def started(self, state: TrialState) -> None: ...

    def step_done(self, state: TrialState, loss: float) -> None: ...

    def save(self, state: TrialState, tensors: Mapping[str, Mapping[str, Tensor]]) -> None: ...

    def epoch_done(self, state: TrialState) -> None: ...

    def ended(self, state: TrialState, result: TrialResult) -> None: ...


class TrialRecorder:
    """Write a trial's files; one process a trial does.

    Args:
        folder: The trial's.
        trial_id: Names it.
        num_epochs: Most epochs.
        num_steps: Train steps of an epoch.
        identity: What a checkpoint is of; kept in each.
    """

    def __init__(
        self, folder: TrialFolder, trial_id: str, num_epochs: int, num_steps: int, identity: Mapping[str, object]
    ) -> None:
        self._folder = folder
        self._trial_id = trial_id
        self._num_epochs = num_epochs
        self._num_steps = num_steps
        self._identity = dict(identity)
        self._store = CheckpointStore(folder.checkpoints)
        self._started_at = time.time()
        self._num_restarts = 0
        self._shown_at = float("-inf")
        self._shown = EpochSums()

    def started(self, state: TrialState) -> None:
        """Take over from the start before, if there was one, and show what it had."""
        before = self._read_progress()
        if before is not None:
            self._started_at, self._num_restarts = before.started_at, before.num_restarts + 1
        self._shown = dataclasses.replace(state.sums)
        # Rows of epochs that are not in the checkpoint are run again, so they go: each epoch stands there once.
        write_atomic(self._folder.metrics, metrics_csv(state.records))
        self._show(state, "running", loss=0.0)

    def step_done(self, state: TrialState, loss: float) -> None:
        """Replace `progress.json`, at most twice a second."""
        if time.monotonic() - self._shown_at >= _PROGRESS_EVERY_S:
            self._show(state, "running", loss)

    def save(self, state: TrialState, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write a checkpoint to the store."""

        def state_after(seconds: float) -> dict[str, object]:
            state.charge_checkpoint(seconds)
            return {**state.to_plain(), "identity": self._identity}

        self._store.save(state.position, tensors, state_after)

    def epoch_done(self, state: TrialState) -> None:
        """Write `metrics.csv` and `progress.json`, and log a line."""
        record = state.records[-1]
        write_atomic(self._folder.metrics, metrics_csv(state.records))
        self._show(state, "running", loss=record.train_loss)
        self._shown = EpochSums()
        log.info(
            "epoch %d/%d: train loss %.4f, val loss %.4f, val accuracy %.4f%s, %.1f s",
            *(record.epoch + 1, self._num_epochs, record.train_loss, record.val_loss, record.val_accuracy),
            *(" (best so far)" if record.is_best else "", record.seconds),
        )

    def ended(self, state: TrialState, result: TrialResult) -> None:
        """Write `progress.json`, then `result.json`; then drop the checkpoints of a trial that is finished."""
        self._show(state, result.state, loss=0.0, reason=result.reason)
        write_atomic(self._folder.result, result.to_json() + "\n")
        if result.state in records.FINISHED:
            self._store.drop()
        log.info("%s%s", result.state, f": {result.reason}" if result.reason else "")

    def _show(self, state: TrialState, name: records.TrialState, loss: float, reason: str = "") -> None:
        images = state.sums.images - self._shown.images
        train_seconds = state.sums.train_seconds - self._shown.train_seconds
        seconds = state.sums.seconds - self._shown.seconds
        wait = state.sums.data_wait_s - self._shown.data_wait_s
        progress = TrialProgress(
            trial_id=self._trial_id,
            state=name,
            epoch=len(state.records),
            num_epochs=self._num_epochs,
            step=state.position.step,
            num_steps=self._num_steps,
            images_per_s=images / train_seconds if train_seconds > 0.0 else state.images_per_s,
            data_wait_share=min(1.0, wait / seconds) if seconds > 0.0 else 0.0,
            loss=loss,
            val_accuracy=[record.val_accuracy for record in state.records],
            started_at=self._started_at,
            updated_at=time.time(),
            reason=reason,
            num_restarts=self._num_restarts,
        )
        write_atomic(self._folder.progress, progress.to_json() + "\n")
        self._shown = dataclasses.replace(state.sums)
        self._shown_at = time.monotonic()

    def _read_progress(self) -> TrialProgress | None:
        try:
            return TrialProgress.from_json(self._folder.progress.read_text())
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, TypeError):
            log.warning("%s cannot be read; the count of restarts begins anew.", self._folder.progress)
            return None


def metrics_csv(rows: list[EpochRecord]) -> str:
    """Return `metrics.csv`: a column a field of `EpochRecord`, a row an epoch; floats read back exactly."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records.to_plain(row) for row in rows)
    return text.getvalue()
