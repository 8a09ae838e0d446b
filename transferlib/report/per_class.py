"""How one model does on each class: precision, recall and F1, each with its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from transferlib.comparison.statistics import Interval, file_interval
from transferlib.comparison.variance import Rows


@dataclass(frozen=True)
class ClassFigures:
    """Hold one class's figures, of one model on one split."""

    label: str
    num_images: int
    """Of the class."""
    precision: Interval | None
    """Of what the model calls so, the share that is; None where it calls nothing so."""
    recall: Interval | None
    """Of the class, the share that is found; None without an image of it."""
    f1: Interval | None
    """Harmonic mean of both; None without an image or a prediction of it."""

    def to_plain(self) -> dict[str, Any]:
        """Return it for JSON."""

        def plain(found: Interval | None) -> dict[str, float] | None:
            return None if found is None else {"value": found.value, "low": found.low, "high": found.high}

        figures = {name: plain(getattr(self, name)) for name in ("precision", "recall", "f1")}
        return {"class": self.label, "num_images": self.num_images, **figures}


def per_class(
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    classes: Sequence[str],
) -> list[ClassFigures]:
    """Return every class with its figures and their 95 % limits, each for itself, the lowest F1 first.

    Recall and precision are shares, of the images of a class and of the images that are called so, and have Wilson's
    limits; images of one group count as one observation, as everywhere (`statistics.file_interval`). F1 has those of a
    share too: with J, the share that is right among the images that are of the class or are called so,
    F1 = 2 J / (1 + J), which rises with J, so limits of J are limits of F1. No limits have width zero.

    Args:
        labels: int64 [N], 0 to K - 1.
        predicted: int64 [N].
        groups: int64 [N], equal for images that belong together.
        classes: K names.
    """
    found = []
    for number, label in enumerate(classes):
        is_label, is_called = labels == number, predicted == number
        is_right = is_label & is_called
        overlap = _share(is_right, is_label | is_called, groups)
        figures = ClassFigures(
            label=label,
            num_images=int(is_label.sum()),
            precision=_share(is_right, is_called, groups),
            recall=_share(is_right, is_label, groups),
            f1=None if overlap is None else Interval(*map(_f1_of, (overlap.value, overlap.low, overlap.high))),
        )
        found.append(figures)
    return sorted(found, key=lambda figures: (2.0 if figures.f1 is None else figures.f1.value, figures.label))


def _share(
    is_right: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]
) -> Interval | None:
    if not among.any():
        return None
    values = is_right[among].astype(np.float64)
    return Interval(float(values.mean()), *file_interval(values, Rows.of(len(values), groups[among])))


def _f1_of(overlap: float) -> float:
    return 2 * overlap / (1 + overlap)
