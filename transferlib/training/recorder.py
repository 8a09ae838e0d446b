"""The observer that writes a trial's files; one process a trial does."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from transferlib import records
from transferlib.data.schedule import Position
from transferlib.models.weights import state_sha256
from transferlib.records import EpochRecord, TrialProgress, TrialResult
from transferlib.runs import file_sha256, write_atomic
from transferlib.training.checkpoint import CheckpointStore
from transferlib.training.export import model_metadata, save_predictions, write_model
from transferlib.training.inputs import TrialInputs
from transferlib.training.learner import Learner
from transferlib.training.lr_schedule import LrSchedule
from transferlib.training.network import Logits
from transferlib.training.state import EpochSums, TrainingState, take_up_totals
from transferlib.training.vitals import VitalSigns

log = logging.getLogger("transferlib.training")

_PROGRESS_EVERY_S = 0.5
_PROGRESS_AT_LEAST_EVERY_S = 2.0
_PROGRESS_SHARE = 1 / 400
"""Of a training's time that showing it may take: where writing is slow (a shared disk, a busy machine) it is shown less
often, so that steps are not."""


class TrialRecorder:
    """Write checkpoints, `metrics.csv`, `progress.json`, the best model, predictions and `result.json`.

    Args:
        inputs: Of the trial; its folder exists.
        device: That this process trains on.
    """

    def __init__(self, inputs: TrialInputs, device: torch.device | str = "cpu") -> None:
        self._inputs = inputs
        self._folder = inputs.folder
        self._num_steps = inputs.schedule().num_train_steps
        training = inputs.job.training
        self._lr_schedule = LrSchedule.from_epochs(training.epochs, training.warmup_epochs, self._num_steps)
        self._stage_factors = inputs.stage_factors()
        self._vital_signs = VitalSigns(torch.device(device))
        self._loss = 0.0
        self._store = CheckpointStore(inputs.folder.checkpoints)
        self._started_at = time.time()
        self._num_restarts = 0
        self._shown_at = float("-inf")
        self._show_s = 0.0
        self._shown = EpochSums()

    def started(self, state: TrainingState) -> None:
        """Take over from the start before, if there was one, and show what it had."""
        before = self._read_progress()
        if before is not None:
            self._started_at, self._num_restarts = before.started_at, before.num_restarts + 1
        state.totals = take_up_totals(state.totals, before.totals if before is not None else None)
        self._store.discard_after(state.position)
        # Epochs that are in no checkpoint are run again, so their rows go: each epoch stands there once.
        write_atomic(self._folder.metrics, metrics_csv(state.records))
        self._shown = dataclasses.replace(state.sums)
        self._loss = _last_loss(state)
        self._show(state, "running")

    def step_done(self, state: TrainingState, loss: float) -> None:
        """Replace `progress.json`, at most twice a second, less often where that takes long."""
        self._loss = loss
        self._show_if_due(state)

    def validation_step_done(self, state: TrainingState) -> None:
        """Replace `progress.json`, at most twice a second, less often where that takes long."""
        self._show_if_due(state)

    def save(self, state: TrainingState, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write a checkpoint to the store.

        Raises:
            CheckpointError: It could not be written.
        """

        num_bytes = sum(tensor.nbytes for named in tensors.values() for tensor in named.values())

        def state_after(seconds: float) -> dict[str, object]:
            state.charge_checkpoint(seconds, num_bytes)
            return {**state.to_plain(), "identity": self._inputs.identity()}

        self._store.save(state.position, tensors, state_after)

    def epoch_done(self, state: TrainingState) -> None:
        """Log a line, then write `metrics.csv` and `progress.json`: an epoch that is seen there is in the log."""
        record = state.records[-1]
        log.info(
            "Epoch %d of at most %d: train loss %.4f, val loss %.4f, val accuracy %.4f%s; %.1f s, checkpoint %.2f s.",
            *(record.epoch + 1, self._inputs.job.training.epochs, record.train_loss, record.val_loss),
            *(record.val_accuracy, " (best so far)" if record.is_best else "", record.seconds, record.checkpoint_s),
        )
        write_atomic(self._folder.metrics, metrics_csv(state.records))
        self._shown = EpochSums()
        self._loss = record.train_loss
        self._show(state, "running")

    def publish(self, state: TrainingState, learner: Learner) -> str:
        """Write `best.safetensors` and `predictions-val.parquet` from the best epoch's checkpoint.

        Raises:
            CheckpointError: It is damaged. The next start goes back behind it.
        """
        assert state.best is not None
        best = self._store.load(state.best.position, only=("model", "validation"))
        learner.load_weights(best.tensors["model"])
        self.save_predictions("val", best.tensors["validation"]["logits"].numpy())
        whole = learner.model.state_dict()
        write_model(self._folder.best, whole, model_metadata(self._inputs))
        return state_sha256(whole)

    def save_predictions(self, split: str, logits: Logits) -> None:
        """Write `predictions-<split>.parquet`."""
        save_predictions(self._inputs, split, logits)

    def ended(self, state: TrainingState, result: TrialResult) -> None:
        """Write `progress.json`, then `result.json`."""
        self._show(state, result.state, reason=result.reason)
        if result.state == "done":
            left = (self._folder.best, self._folder.predictions("val"))
            result = dataclasses.replace(result, files={path.name: file_sha256(path) for path in left})
        write_atomic(self._folder.result, result.to_json() + "\n")
        log.info("The trial is %s%s", result.state, f": {result.reason}" if result.reason else ".")

    def tidy(self) -> None:
        """Drop the checkpoints."""
        self._store.drop()

    def _show_if_due(self, state: TrainingState) -> None:
        began = time.monotonic()
        wanted_s = max(_PROGRESS_EVERY_S, self._show_s / _PROGRESS_SHARE)
        if began - self._shown_at >= min(wanted_s, _PROGRESS_AT_LEAST_EVERY_S):
            self._show(state, "running")
            self._show_s = time.monotonic() - began

    def _show(self, state: TrainingState, name: records.TrialState, reason: str = "") -> None:
        sums, shown = state.sums, self._shown
        train_seconds, seconds = sums.train_seconds - shown.train_seconds, sums.seconds - shown.seconds
        images, wait = sums.images - shown.images, sums.data_wait_s - shown.data_wait_s
        progress = TrialProgress(
            trial_id=self._inputs.trial.trial_id,
            state=name,
            epoch=len(state.records),
            num_epochs=self._inputs.job.training.epochs,
            step=state.position.step,
            num_steps=self._num_steps,
            images_per_s=images / train_seconds if train_seconds > 0.0 else state.images_per_s,
            data_wait_share=min(1.0, wait / seconds) if seconds > 0.0 else 0.0,
            loss=self._loss,
            val_accuracy=[record.val_accuracy for record in state.records],
            started_at=self._started_at,
            updated_at=time.time(),
            reason=reason,
            num_restarts=self._num_restarts,
            totals=state.totals,
            stage_lrs=self._stage_lrs(state.position),
            val_loss=state.records[-1].val_loss if state.records else None,
            **dataclasses.asdict(self._vital_signs.read()),
        )
        write_atomic(self._folder.progress, progress.to_json() + "\n")
        self._shown, self._shown_at = dataclasses.replace(sums), time.monotonic()

    def _stage_lrs(self, position: Position) -> dict[str, float]:
        """Return each stage's rate at the train step before a position; at the first step before that."""
        step = max(0, position.epoch * self._num_steps + position.step - 1)
        head_lr = self._inputs.trial.lr * self._lr_schedule.factor(step)
        return {stage: factor * head_lr for stage, factor in self._stage_factors.items()}

    def _read_progress(self) -> TrialProgress | None:
        try:
            return TrialProgress.from_json(self._folder.progress.read_text())
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, TypeError):
            log.warning(
                "%s cannot be read; restarts and totals since the last checkpoint are counted anew.",
                self._folder.progress,
            )
            return None


def _last_loss(state: TrainingState) -> float:
    """Return the mean training loss of the newest epoch that has steps; 0 before the first step."""
    if state.sums.images:
        return state.sums.loss / state.sums.images
    return state.records[-1].train_loss if state.records else 0.0


def metrics_csv(rows: Sequence[EpochRecord]) -> str:
    """Return `metrics.csv`: a column a field of `EpochRecord`, a row an epoch; floats read back exactly."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records.to_plain(row) for row in rows)
    return text.getvalue()
