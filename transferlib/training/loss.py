"""The training loss, as sums: a sum over images can be added over ranks and steps, a mean of means cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TrainingLoss:
    """Sum the cross-entropy over images."""

    class_weights: Tensor | None
    """float32 [K]; None: every class counts alike."""
    label_smoothing: float
    """Share of the target spread over all classes."""

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the summed loss, float32 scalar, nat; zero for no images.

        Args:
            logits: float [B, K], of any precision; the loss is computed in float32.
            labels: int64 [B].
        """
        return F.cross_entropy(
            logits.float(), labels, self.class_weights, reduction="sum", label_smoothing=self.label_smoothing
        )


def class_weights(
    kind: Literal["none", "balanced"], labels: npt.NDArray[np.int64], num_classes: int, device: torch.device
) -> Tensor | None:
    """Return the weight of each class in the training loss, float32 [K], or None for "none".

    Balanced weights go as one over a class's images and average 1 over the training images, so that the size of the
    loss, and with it the meaning of a rate, stays.

    Args:
        kind: none or balanced.
        labels: Of the training images, int64 [N]; every class occurs.
        num_classes: K.
        device: Where the loss is computed.
    """
    if kind == "none":
        return None
    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (num_classes * counts)
    return torch.tensor(weights, dtype=torch.float32, device=device)


def mean_nll(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood, nat, in float64; not finite where a logit is not.

    Args:
        logits: float32 [N, K].
        labels: int64 [N].
    """
    return float(F.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels)))
