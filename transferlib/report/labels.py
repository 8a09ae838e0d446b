"""Test images whose label may be wrong, with a picture of each."""

from __future__ import annotations

import dataclasses
from typing import Any

from transferlib.comparison.label_errors import suspected_labels
from transferlib.comparison.leaderboard import Comparison
from transferlib.comparison.results import RunResults
from transferlib.report.mistakes import Thumbnail, Thumbnails

MAX_LABELS = 24
"""Pictures; the number of all is said."""


def label_content(comparison: Comparison, found: RunResults, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """Return the suspected labels of a finished run, the surest first, the first `MAX_LABELS` with a thumbnail.

    Empty where the arms have not learnt: models that always say the same agree on every image of another class.

    Args:
        comparison: The run's.
        found: Its trials and their scores.
        thumbnails: Of the manifest's images.
    """
    if not comparison.is_final or comparison.verdict.state == "at_chance":
        return []
    suspected = suspected_labels(found, comparison.choice)
    pictures = [thumbnails.of(label.image_id) for label in suspected[:MAX_LABELS]]
    pictures += [Thumbnail()] * (len(suspected) - len(pictures))
    return [
        {**dataclasses.asdict(label), "thumbnail": picture} for label, picture in zip(suspected, pictures, strict=True)
    ]
