"""Which classes are taken for which, over all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transferlib.evaluation.metrics import Metrics

NUM_PAIRS = 10


@dataclass(frozen=True)
class ConfusedPair:
    """Hold one cell off the diagonal."""

    label: str
    predicted: str
    count: int
    """Images, over all seeds."""
    share: float
    """Of the label's images, 0 to 1."""


def summed_confusion(metrics: Sequence[Metrics]) -> npt.NDArray[np.int64]:
    """Return the sum of the seeds' confusion matrices, int64 [K, K]."""
    total: npt.NDArray[np.int64] = np.sum([found.confusion for found in metrics], axis=0)
    return total


def confused_pairs(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> list[ConfusedPair]:
    """Return the most frequent confusions, most frequent first.

    Args:
        confusion: int64 [K, K], rows are labels.
        classes: K names.
    """
    off = confusion.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:NUM_PAIRS]
    totals = confusion.sum(axis=1)
    cells = [divmod(int(place), len(classes)) for place in order]
    return [
        ConfusedPair(classes[row], classes[column], int(off[row, column]), float(off[row, column] / totals[row]))
        for row, column in cells
        if off[row, column]
    ]
