"""The observer that writes a trial's files; one process a trial does."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import time
from collections.abc import Mapping, Sequence

from torch import Tensor

from transferlib import records
from transferlib.models.weights import state_sha256
from transferlib.records import EpochRecord, TrialProgress, TrialResult
from transferlib.runs import write_atomic
from transferlib.training.checkpoint import CheckpointStore
from transferlib.training.export import model_metadata, save_predictions, write_model
from transferlib.training.inputs import TrialInputs
from transferlib.training.learner import Learner
from transferlib.training.network import Logits
from transferlib.training.state import EpochSums, TrainingState

log = logging.getLogger("transferlib.training")

_PROGRESS_EVERY_S = 0.5


class TrialRecorder:
    """Write checkpoints, `metrics.csv`, `progress.json`, the best model, predictions and `result.json`.

    Args:
        inputs: Of the trial; its folder exists.
    """

    def __init__(self, inputs: TrialInputs) -> None:
        self._inputs = inputs
        self._folder = inputs.folder
        self._num_steps = inputs.schedule().num_train_steps
        self._store = CheckpointStore(inputs.folder.checkpoints)
        self._started_at = time.time()
        self._num_restarts = 0
        self._shown_at = float("-inf")
        self._shown = EpochSums()

    def started(self, state: TrainingState) -> None:
        """Take over from the start before, if there was one, and show what it had."""
        before = self._read_progress()
        if before is not None:
            self._started_at, self._num_restarts = before.started_at, before.num_restarts + 1
        self._store.discard_after(state.position)
        # Epochs that are in no checkpoint are run again, so their rows go: each epoch stands there once.
        write_atomic(self._folder.metrics, metrics_csv(state.records), is_durable=False)
        self._shown = dataclasses.replace(state.sums)
        self._show(state, "running")

    def step_done(self, state: TrainingState, loss: float) -> None:
        """Replace `progress.json`, at most twice a second."""
        if time.monotonic() - self._shown_at >= _PROGRESS_EVERY_S:
            self._show(state, "running", loss)

    def save(self, state: TrainingState, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write a checkpoint to the store.

        Raises:
            CheckpointError: It could not be written.
        """

        def state_after(seconds: float) -> dict[str, object]:
            state.charge_checkpoint(seconds)
            return {**state.to_plain(), "identity": self._inputs.identity()}

        self._store.save(state.position, tensors, state_after)

    def epoch_done(self, state: TrainingState) -> None:
        """Write `metrics.csv` and `progress.json`, and log a line."""
        record = state.records[-1]
        write_atomic(self._folder.metrics, metrics_csv(state.records), is_durable=False)
        self._shown = EpochSums()
        self._show(state, "running", record.train_loss)
        log.info(
            "Epoch %d of at most %d: train loss %.4f, val loss %.4f, val accuracy %.4f%s; %.1f s, checkpoint %.2f s.",
            *(record.epoch + 1, self._inputs.job.training.epochs, record.train_loss, record.val_loss),
            *(record.val_accuracy, " (best so far)" if record.is_best else "", record.seconds, record.checkpoint_s),
        )

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
        write_atomic(self._folder.result, result.to_json() + "\n")
        log.info("The trial is %s%s", result.state, f": {result.reason}" if result.reason else ".")

    def tidy(self) -> None:
        """Drop the checkpoints."""
        self._store.drop()

    def _show(self, state: TrainingState, name: records.TrialState, loss: float = 0.0, reason: str = "") -> None:
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
            loss=loss,
            val_accuracy=[record.val_accuracy for record in state.records],
            started_at=self._started_at,
            updated_at=time.time(),
            reason=reason,
            num_restarts=self._num_restarts,
        )
        write_atomic(self._folder.progress, progress.to_json() + "\n", is_durable=False)
        self._shown, self._shown_at = dataclasses.replace(sums), time.monotonic()

    def _read_progress(self) -> TrialProgress | None:
        try:
            return TrialProgress.from_json(self._folder.progress.read_text())
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, TypeError):
            log.warning("%s cannot be read; restarts are counted anew.", self._folder.progress)
            return None


def metrics_csv(rows: Sequence[EpochRecord]) -> str:
    """Return `metrics.csv`: a column a field of `EpochRecord`, a row an epoch; floats read back exactly."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records.to_plain(row) for row in rows)
    return text.getvalue()
