"""From a batch to logits, in a precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from transferlib.data.batches import Batch
from transferlib.data.schedule import Rows
from transferlib.errors import DataError
from transferlib.training.normaliser import Normaliser
from transferlib.training.precision import Precision, autocast
from transferlib.training.worker import Worker

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """Run a model on batches."""

    model: nn.Module
    """On the device, in channels_last; plain, or as a worker prepared it."""
    normaliser: Normaliser
    """Makes pixels the model's input, on the device."""
    precision: Precision
    """Of the forward pass."""
    device: torch.device
    """Where the model is."""

    def logits(self, batch: Batch) -> Tensor:
        """Return logits, [B, K], in the forward pass's precision."""
        images = self.normaliser.images(batch.pixels)
        with autocast(self.precision, self.device):
            logits: Tensor = self.model(images)
        return logits

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Return logits, float32 [B, K]; the model must be in evaluation mode. No images give no rows."""
        return self.logits(batch).float()


def gather_logits(worker: Worker, predicted: list[tuple[Rows, Tensor]], expected: Rows, num_classes: int) -> Logits:
    """Return the logits of all ranks in row order, float32 [N, K], the same on every rank.

    Args:
        worker: Gathers.
        predicted: This rank's rows and their logits, a pair a step.
        expected: The rows that there must be, each once, ascending, int64 [N].
        num_classes: K.

    Raises:
        DataError: Rows are missing, twice there or foreign: no metric may come of them.
    """
    rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in predicted)])
    logits = torch.cat([torch.empty(0, num_classes, device=worker.device), *(logits for _, logits in predicted)])
    parts = worker.gather((rows, logits.cpu().numpy()))  # device sync
    all_rows = np.concatenate([rows for rows, _ in parts])
    order = np.argsort(all_rows, kind="stable")
    if not np.array_equal(all_rows[order], expected):
        raise DataError(
            f"Evaluation saw {len(all_rows)} rows, {len(np.unique(all_rows))} of them different; the manifest has "
            f"{len(expected)}, and {len(np.intersect1d(all_rows, expected))} are among them. "
            "No metric is computed from them."
        )
    gathered: Logits = np.concatenate([logits for _, logits in parts])[order]
    return gathered
