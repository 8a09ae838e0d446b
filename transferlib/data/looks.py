"""What is kept of how an image looks: a small grey picture, its colours and its sharpness, taken while the pixels are
in memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SIDE = 32
"""Side of the small picture, pixels: the image squeezed into a square, whatever its shape."""
COLOUR_SIDE = 8
"""Side of the picture of colours, pixels."""
_WORKING_SIDE = 128
"""Short side that an image is brought down to first, by whole factors (which is many times quicker), pixels."""

DARK_BELOW, BRIGHT_ABOVE = 25.0, 235.0
"""Mean grey past which hardly anything can be seen, of 255."""
BLANK_BELOW = 4.0
"""Standard deviation of grey below which there is no picture, of 255."""
BLURRED_BELOW, BLURRED_FROM_SIDE = 0.1, 224
"""Sharpness below which a photo is out of focus, and the short side that it must have: a smaller one is enlarged. Of
396 photos none is below 0.2; blurred by 1/64 of their short side (standard deviation) two thirds are below 0.1."""
PLAIN_MODES = frozenset({"RGB", "L", "YCbCr", ""})
"""Modes that need no remark; "" where it is not known any more."""


class Look(NamedTuple):
    """Hold how an image looks."""

    thumbnail: bytes
    """SIDE x SIDE grey values, row by row, of the image as it is to be seen."""
    sharpness: float
    """Of edges, see `look_at`; 0 where nothing is seen."""
    mode: str = ""
    """Pillow's name of how the file holds colours; empty where it is not known."""
    orientation: int = 1
    """EXIF's, 1 to 8; 1: as stored."""
    colours: bytes | None = None
    """COLOUR_SIDE x COLOUR_SIDE values of Cr and Cb (128: grey), as the thumbnail lies; None: not known."""


NOT_LOOKED_AT = (None,) * len(Look._fields)
"""What stands in a table's columns where there is no look."""


def look_at(pixels: npt.NDArray[np.uint8], mode: str = "", orientation: int = 1) -> Look:
    """Return how an image looks.

    Sharpness is the standard deviation of the Laplacian over that of grey, at a short side of 128 to 255 pixels, so it
    depends on neither contrast nor resolution. Source: the variance of the Laplacian as a measure of focus,
    Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy.

    Args:
        pixels: [H, W, 3] RGB, turned as it is to be seen.
        mode: Of the file.
        orientation: Of the file.
    """
    import cv2  # here, since a manifest is read without it

    height, width = pixels.shape[:2]
    factor = max(1, min(height, width) // _WORKING_SIDE)
    if factor > 1:
        whole = pixels[: height // factor * factor, : width // factor * factor]
        pixels = cv2.resize(whole, (width // factor, height // factor), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    contrast = float(cv2.meanStdDev(grey)[1][0, 0])
    edges = float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1][0, 0])
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    few = cv2.resize(pixels, (COLOUR_SIDE, COLOUR_SIDE), interpolation=cv2.INTER_AREA)
    colours = np.ascontiguousarray(cv2.cvtColor(few, cv2.COLOR_RGB2YCrCb)[:, :, 1:]).tobytes()
    sharpness = edges / contrast if contrast >= 1.0 else 0.0
    return Look(small.tobytes(), sharpness, mode, orientation, colours)


def remarks(look: Look, short_side: int) -> list[str]:
    """Return what is odd about an image, a few words each; nothing for most.

    Args:
        look: Of the image.
        short_side: Of the file's image, pixels.
    """
    grey = np.frombuffer(look.thumbnail, np.uint8)
    found = []
    if grey.std() < BLANK_BELOW:
        found.append("blank")
    elif look.sharpness < BLURRED_BELOW and short_side >= BLURRED_FROM_SIDE:
        found.append("blurred")
    if grey.mean() < DARK_BELOW:
        found.append("dark")
    if grey.mean() > BRIGHT_ABOVE:
        found.append("bright")
    if look.mode not in PLAIN_MODES:
        found.append(f"mode {look.mode}")
    if look.orientation != 1:
        found.append(f"EXIF orientation {look.orientation}")
    return found
