"""A picture of what augmentation does: a row an image, a column an epoch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from transferlib.data.augment import Augmentation, evaluation_draws, render
from transferlib.runs import write_atomic

_GAP = 4
_CAPTION_HEIGHT = 14
_PAPER, _INK = (255, 255, 255), (60, 60, 60)


def mosaic_tiles(
    images: Sequence[NDArray[np.uint8]],
    keys: NDArray[np.uint64],
    augmentation: Augmentation,
    seed: int,
    num_epochs: int,
) -> NDArray[np.uint8]:
    """Return each image as evaluation would see it, then as training sees it in the first epochs.

    Args:
        images: R decoded images, uint8 [H, W, 3], RGB.
        keys: [R] their keys.
        augmentation: What training images go through.
        seed: A trial's seed.
        num_epochs: How many epochs to show.

    Returns:
        uint8 [R, 1 + num_epochs, S, S, 3].
    """
    size = augmentation.image_size
    sizes = np.array([image.shape[:2] for image in images], np.int64).reshape(-1, 2)
    columns = [render(images, evaluation_draws(sizes, size), size)]
    columns += [render(images, augmentation.draw(seed, epoch, keys, sizes), size) for epoch in range(num_epochs)]
    return np.stack(columns, axis=1)


def save_mosaic(
    path: Path,
    images: Sequence[NDArray[np.uint8]],
    keys: NDArray[np.uint64],
    augmentation: Augmentation,
    seed: int,
    *,
    num_epochs: int = 7,
) -> None:
    """Write `mosaic_tiles` as one PNG with a line of captions over its columns.

    Args:
        path: Of the PNG; written by rename.
        images: R decoded images, uint8 [H, W, 3], RGB.
        keys: [R] their keys.
        augmentation: What training images go through.
        seed: A trial's seed.
        num_epochs: How many epochs to show.
    """
    tiles = mosaic_tiles(images, keys, augmentation, seed, num_epochs)
    num_rows, num_columns, size = tiles.shape[:3]
    pitch = size + _GAP
    sheet = Image.new("RGB", (num_columns * pitch + _GAP, _CAPTION_HEIGHT + num_rows * pitch + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column in range(num_columns):
        left = _GAP + column * pitch
        caption = "evaluation" if column == 0 else f"epoch {column - 1}"
        pen.text((left, 2), caption, fill=_INK)
        for row in range(num_rows):
            sheet.paste(Image.fromarray(tiles[row, column]), (left, _CAPTION_HEIGHT + _GAP + row * pitch))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    write_atomic(path, buffer.getvalue())
