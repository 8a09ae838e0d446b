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
_LONGEST_NAME = 24
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
    names: Sequence[str],
    num_epochs: int,
) -> None:
    """Write `mosaic_tiles` as one PNG: a row an image with its class before it, a caption over each column.

    Where training sees every image as evaluation does, each image stands there once, side by side with the others.

    Args:
        path: Of the PNG; written by rename.
        images: R decoded images, uint8 [H, W, 3], RGB.
        keys: [R] their keys.
        augmentation: What training images go through.
        seed: A trial's seed.
        names: R class names.
        num_epochs: How many epochs to show.
    """
    tiles = mosaic_tiles(images, keys, augmentation, seed, num_epochs)
    if (tiles == tiles[:, :1]).all():
        sheet = _lay_out(tiles[None, :, 0], [""], names)
    else:
        sheet = _lay_out(tiles, names, ["evaluation", *(f"epoch {epoch}" for epoch in range(1, num_epochs + 1))])
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    write_atomic(path, buffer.getvalue())


def _lay_out(tiles: NDArray[np.uint8], row_names: Sequence[str], captions: Sequence[str]) -> Image.Image:
    """Return tiles [R, C, S, S, 3] as one picture; no name or caption reaches into its neighbour."""
    num_rows, num_columns, size = tiles.shape[:3]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    row_texts, column_texts = [_short(name) for name in row_names], [_short(name) for name in captions]
    margin = max(int(measure.textlength(text)) for text in row_texts)
    left = _GAP + (margin + 2 * _GAP if margin else 0)
    pitch = max(size, *(int(measure.textlength(text)) for text in column_texts)) + _GAP
    height = size + _GAP
    sheet = Image.new("RGB", (left + num_columns * pitch, _CAPTION_HEIGHT + num_rows * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(column_texts):
        pen.text((left + column * pitch, 2), text, fill=_INK)
    for row, text in enumerate(row_texts):
        top = _CAPTION_HEIGHT + _GAP + row * height
        pen.text((_GAP, top + size // 2), text, fill=_INK, anchor="lm")
        for column in range(num_columns):
            sheet.paste(Image.fromarray(tiles[row, column]), (left + column * pitch, top))
    return sheet


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
