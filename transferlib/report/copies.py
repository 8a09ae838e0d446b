"""What the report says of copies: pairs of images that show the same, and figures without test images of train."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from transferlib.comparison.leaderboard import Comparison
from transferlib.comparison.results import RunResults, TrialScores
from transferlib.data.manifest import Manifest
from transferlib.data.near_notes import CopyPair, copy_pairs, shown_in_train
from transferlib.evaluation.metrics import Scores
from transferlib.report.mistakes import Thumbnails

Ints = npt.NDArray[np.int64]

MAX_PAIRS = 24
"""Pairs with pictures; the number of all is said."""


def copy_content(
    comparison: Comparison, found: RunResults, manifest: Manifest, thumbnails: Thumbnails
) -> dict[str, Any]:
    """Return the pairs, the most telling first, and each arm's figures with and without leaked test images.

    Args:
        comparison: The run's.
        found: Its trials and their scores.
        manifest: The run's.
        thumbnails: Of the manifest's images.
    """
    pairs = copy_pairs(manifest.table)
    return {
        "pairs": [_with_pictures(pair, thumbnails) for pair in pairs[:MAX_PAIRS]],
        "num_pairs": len(pairs),
        **_figures_without(comparison, found, manifest),
    }


def _with_pictures(pair: CopyPair, thumbnails: Thumbnails) -> dict[str, Any]:
    pictures = [thumbnails.of_file(side.image_id, side.uri, side.sha256) for side in pair.sides]
    return {"pair": pair, "sides": list(zip(pair.sides, pictures, strict=True))}


def _figures_without(comparison: Comparison, found: RunResults, manifest: Manifest) -> dict[str, Any]:
    """Return how many test images show the same as a training image, and the arms' figures with and without them."""
    leaked = shown_in_train(manifest.table, "test")
    if not leaked or not comparison.is_final or manifest.folds is not None:
        return {"num_leaked": len(leaked), "leaked_share": 0.0, "leaks": []}
    images = found.splits["test"]
    rows = np.array([row for row, image_id in enumerate(images.image_ids) if image_id not in leaked], np.int64)
    leaks = []
    for arm in comparison.arms:
        figure = arm.figure("test", comparison.metric)
        by_seed = found.by_seed(arm.chosen, "test")
        if figure is None or not by_seed or not len(rows):
            continue
        kept = [_of_rows(scores, images.labels, rows, len(found.classes)) for scores in by_seed.values()]
        values = [value for scores in kept if (value := scores.metrics.value(comparison.metric)) is not None]
        leaks.append({"arm": arm.arm, "with": figure.mean, "without": float(np.mean(values))})
    share = len(leaked) / len(images.image_ids)
    return {"num_leaked": len(leaked), "leaked_share": share, "leaks": leaks}


def _of_rows(scores: TrialScores, labels: Ints, rows: Ints, num_classes: int) -> TrialScores:
    of = scores.scores
    kept = Scores(of.predicted[rows], of.confidence[rows], of.label_loss[rows], of.label_rank[rows])
    return TrialScores.of(labels[rows], kept, num_classes)
