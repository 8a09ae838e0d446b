"""The worst mistakes of an arm, as small pictures inside the page."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from transferlib.data.decode import BadImageError, Limits, decode_image
from transferlib.data.facts import UnreadableFileError, read_file
from transferlib.data.images import ImageTable
from transferlib.errors import StorageError
from transferlib.evaluation.metrics import score_images
from transferlib.evaluation.predictions import Predictions

NUM_MISTAKES = 24
THUMBNAIL_SIDE = 192
"""Longest side, pixels; shown at about half of it."""
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class Mistake:
    """Hold one image that an arm got wrong."""

    image_id: str
    label: str
    predicted: str
    """By the seed that was surest of it."""
    confidence: float
    """Of that seed in its prediction, 0 to 1."""
    num_wrong: int
    """Seeds that got it wrong."""
    num_seeds: int
    picture: str
    """A data: URI; empty where the file cannot be shown."""
    problem: str
    """Why it cannot be shown; empty where it can."""


def find_mistakes(tables: Sequence[Predictions], images: ImageTable, split: str, limits: Limits) -> list[Mistake]:
    """Return the images an arm gets most wrong: by the mean over seeds of the label's loss, largest first.

    Args:
        tables: The arm's complete predictions on the split, one a seed.
        images: The manifest's used images.
        split: val or test.
        limits: Of decoding.
    """
    rows = images.rows(split)
    labels = images.labels[rows]
    ordered = [table.in_order_of(images) for table in tables]
    scores = [score_images(labels, table.logits) for table in ordered]
    predicted = np.stack([score.predicted for score in scores])
    confidence = np.stack([score.confidence for score in scores])
    is_wrong = predicted != labels
    loss = np.stack([score.label_loss for score in scores]).mean(axis=0)
    worst = np.argsort(-np.where(is_wrong.any(axis=0), loss, -1.0), kind="stable")[:NUM_MISTAKES]
    found = []
    for place in worst[is_wrong.any(axis=0)[worst]].tolist():
        surest = int(np.where(is_wrong[:, place], confidence[:, place], -1.0).argmax())
        row = int(rows[place])
        picture, problem = thumbnail(images.uris[row], images.sha256[row], limits)
        found.append(
            Mistake(
                image_id=images.image_ids[row],
                label=images.classes[labels[place]],
                predicted=images.classes[predicted[surest, place]],
                confidence=float(confidence[surest, place]),
                num_wrong=int(is_wrong[:, place].sum()),
                num_seeds=len(tables),
                picture=picture,
                problem=problem,
            )
        )
    return found


def thumbnail(uri: str, sha256: str, limits: Limits) -> tuple[str, str]:
    """Return a small JPEG of an image as a data: URI, or why there is none.

    Args:
        uri: Absolute path.
        sha256: What the manifest says of its bytes.
        limits: Of decoding.
    """
    try:
        data, _ = read_file(uri, limits)
        if hashlib.sha256(data).hexdigest() != sha256:
            return "", "the file has changed since the run"
        pixels = decode_image(data, short_side=THUMBNAIL_SIDE, limits=limits).pixels
    except (UnreadableFileError, BadImageError, StorageError) as error:
        return "", str(error)
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}", ""
