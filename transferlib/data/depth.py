"""Pictures of more than 8 bits a channel: 16-bit and float values brought to bytes by their range, never clipped."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image


def value_range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the values that become black and white.

    Black is 0 and white the smallest full scale that holds the largest value: 2^n - 1 (255, 4095, 65535, ...) above 1,
    and 2^n up to 1. So 12-bit data in a 16-bit file keeps its contrast, a 16-bit copy of an 8-bit picture looks like
    it, and a float picture of 0 to 1 or 0 to 255 reads as it was meant. With negative values: lowest to highest.

    Args:
        values: Any shape, integer or float, finite.
    """
    low, high = float(values.min()), float(values.max())
    if low < 0:
        return low, high
    if high > 1:
        return 0.0, 2.0 ** math.ceil(math.log2(high + 1)) - 1
    return 0.0, 2.0 ** math.ceil(math.log2(high)) if high > 0 else 1.0


def scale_to_bytes(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale values to 0..255 by their range.

    Args:
        values: Any shape, integer or float.

    Returns:
        The same shape.

    Raises:
        ValueError: Values that are not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("holds values that are not finite")
    low, high = value_range(values)
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low) if high > low else 0.0)
    return np.rint(scaled).astype(np.uint8)


def has_deep_colour(image: Image.Image) -> bool:
    """Say whether a picture that is not loaded yet has 16-bit colour channels, of which Pillow keeps the upper 8 bits.

    Args:
        image: Opened, before `load` (which drops what this looks at).
    """
    tiles = getattr(image, "tile", None)
    if image.format != "PNG" or not tiles or image.mode not in ("RGB", "RGBA"):  # a BMP's "BGR;16" are 5, 6 and 5 bits
        return False
    args = tiles[0][3]
    raw_mode = args if isinstance(args, str) else args[0] if isinstance(args, tuple) and args else ""
    return ";16" in str(raw_mode)


def read_deep(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode a PNG with 16-bit channels; OpenCV keeps all their bits, Pillow does not.

    Args:
        data: A whole file whose declared size was found acceptable.

    Returns:
        [H, W, 3] RGB, alpha laid on white.

    Raises:
        ValueError: It cannot be decoded, or holds values that are not finite.
    """
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("its pixels cannot be read")
    if values.ndim == 2:
        return np.repeat(scale_to_bytes(values)[:, :, None], 3, axis=2)
    if values.shape[2] not in (3, 4):
        raise ValueError(f"{values.shape[2]} channels are no colours")
    colours = scale_to_bytes(values[:, :, 2::-1])
    if values.shape[2] == 3:
        return colours
    alpha = values[:, :, 3:].astype(np.float64)
    alpha /= float(2 ** (8 * values.dtype.itemsize) - 1) if values.dtype.kind == "u" else 1.0
    laid: npt.NDArray[np.uint8] = np.rint(255.0 + (colours - 255.0) * alpha.clip(0.0, 1.0)).astype(np.uint8)
    return laid
