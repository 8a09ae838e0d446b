"""The worst mistakes of a model, as small pictures inside the page."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from transferlib.comparison.results import SplitImages, TrialScores
from transferlib.data.decode import BadImageError, Limits, decode_image
from transferlib.data.depth_scale import DepthScale
from transferlib.data.facts import UnreadableFileError, read_file
from transferlib.data.images import ImageTable
from transferlib.errors import StorageError

NUM_MISTAKES = 24
THUMBNAIL_SIDE = 192
"""Longest side, pixels; shown at about half of it."""
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class Thumbnail:
    """Hold an image as a small picture inside the page."""

    picture: str = ""
    """A data: URI; empty where the file cannot be shown, or no pictures are wanted."""
    problem: str = ""
    """Why it cannot be shown; empty where it can."""


@dataclass(frozen=True)
class Mistake:
    """Hold one image that a model got wrong."""

    image_id: str
    label: str
    predicted: str
    confidence: float
    """Of the model in its prediction, 0 to 1."""
    thumbnail: Thumbnail


class Thumbnails:
    """Make thumbnails of a manifest's images, each once."""

    def __init__(self, images: ImageTable, limits: Limits | None) -> None:
        """Take the images.

        Args:
            images: The manifest's used images.
            limits: Of decoding; None: no image file is opened, and thumbnails are empty.
        """
        self._row_of = {image_id: row for row, image_id in enumerate(images.image_ids)}
        self._images, self._limits = images, limits
        self._made: dict[str, Thumbnail] = {}

    def of(self, image_id: str) -> Thumbnail:
        """Return the thumbnail of a used image."""
        row = self._row_of[image_id]
        return self.of_file(image_id, self._images.uris[row], self._images.sha256[row])

    def of_file(self, image_id: str, uri: str, sha256: str) -> Thumbnail:
        """Return the thumbnail of any image of the manifest.

        Args:
            image_id: Its id.
            uri: Where it lies.
            sha256: What the manifest says of its bytes.
        """
        if self._limits is None:
            return Thumbnail()
        if image_id not in self._made:
            self._made[image_id] = Thumbnail(*thumbnail(uri, sha256, self._limits, self._images.scale))
        return self._made[image_id]


def find_mistakes(
    scores: TrialScores, images: SplitImages, classes: Sequence[str], thumbnails: Thumbnails
) -> list[Mistake]:
    """Return the images that one model gets most wrong, by the label's loss, largest first.

    Args:
        scores: The model's, image by image.
        images: Of the split.
        classes: K names.
        thumbnails: Of the manifest's images.
    """
    is_wrong = scores.predicted != images.labels
    worst = np.argsort(-np.where(is_wrong, scores.values["log_loss"], -1.0), kind="stable")[:NUM_MISTAKES]
    return [
        Mistake(
            image_id=images.image_ids[row],
            label=classes[images.labels[row]],
            predicted=classes[scores.predicted[row]],
            confidence=float(scores.confidence[row]),
            thumbnail=thumbnails.of(images.image_ids[row]),
        )
        for row in worst.tolist()
        if is_wrong[row]
    ]


def thumbnail(uri: str, sha256: str, limits: Limits, scale: DepthScale | None) -> tuple[str, str]:
    """Return a small JPEG of an image as a data: URI, or why there is none.

    Args:
        uri: Absolute path.
        sha256: What the manifest says of its bytes.
        limits: Of decoding.
        scale: Of the manifest's deep images.
    """
    try:
        data, _ = read_file(uri, limits)
        if hashlib.sha256(data).hexdigest() != sha256:
            return "", "the file has changed since the run"
        pixels = decode_image(data, short_side=THUMBNAIL_SIDE, limits=limits, scale=scale).pixels
    except (UnreadableFileError, BadImageError, StorageError) as error:
        return "", str(error)
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}", ""
