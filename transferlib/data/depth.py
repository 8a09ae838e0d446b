"""Pictures of more than 8 bits a channel: their numbers as stored, what those say of a scale, and bytes by a scale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from transferlib.data.depth_scale import DARKEST, LEVELS, DepthFacts, DepthScale, Kind, Range, settle_range

Numbers = npt.NDArray[Any]
_BYTE = 8
_MOST_COUNTED_BITS = 16
"""Whole numbers up to this are counted by value, which is quicker than by logarithm."""
_FIRST_COUNT = 128.0
"""Above it, fractions are taken for counts; see `depth_scale.full_scale`."""


class UnsupportedImageError(ValueError):
    """Report a whole file of a kind that is not read; its text says which and what to do."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Hold the numbers of a picture as they are stored, which only a scale makes a picture."""

    colours: Numbers
    """[H, W, 1 or 3], finite."""
    bits: int
    """Of a sample, as the file has it."""
    alpha: npt.NDArray[np.float64] | None = None
    """[H, W, 1], 0 to 1: what the colours are laid on white with."""
    is_premultiplied: bool = False
    """Whether the colours are multiplied by alpha already."""
    declares_bits: bool = False
    """Whether `bits` says how large the numbers are meant to be, and is not just the room they are in."""
    significant: int = 0
    """As of `DepthFacts`."""
    limits: Range | None = None
    """As of `DepthFacts`."""

    def __post_init__(self) -> None:
        if not np.isfinite(self.colours).all():
            raise UnsupportedImageError(
                "holds values that are not finite (NaN or infinite); save it with others in their place"
            )

    @property
    def kind(self) -> Kind:
        """Return the kind of number."""
        return "fraction" if self.colours.dtype.kind == "f" else "whole"

    @property
    def is_deep(self) -> bool:
        """Say whether the numbers need a scale; unsigned ones of 8 bits or fewer have theirs."""
        return self.bits > _BYTE or self.colours.dtype.kind != "u"

    @cached_property
    def facts(self) -> DepthFacts:
        """Count how bright the pixels are, and say what the file declares."""
        channels = np.moveaxis(self.colours, 2, 0)
        brightest = reduce(np.maximum, channels)  # ten times as fast as max(axis=2)
        has_signs = self.colours.dtype.kind != "u"
        return DepthFacts(
            kind=self.kind,
            brightest=_count_levels(brightest, self.kind),
            darkest=_count_below_zero(reduce(np.minimum, channels)) if has_signs else (),
            bits=self.bits if self.declares_bits else 0,
            significant=self.significant,
            limits=self.limits,
        )

    def render(self, scale: DepthScale | None) -> npt.NDArray[np.uint8]:
        """Return the picture, what is beyond the range black or white, laid on white.

        Args:
            scale: Of the data set; None, or none of this kind: the one of a data set of this picture alone.

        Returns:
            [H, W, 3] RGB.
        """
        low, high = self._range(scale)
        if self.alpha is None:
            seen = scale_to_bytes(self.colours, low, high)
        else:
            white = 255.0 * self.alpha
            if self.is_premultiplied:
                laid = ((self.colours - low * self.alpha) * (255.0 / (high - low))).clip(0.0, white)
            else:
                laid = scale_to_bytes(self.colours, low, high) * self.alpha
            seen = np.rint(laid + 255.0 - white).astype(np.uint8)
        return np.repeat(seen, 3, axis=2) if seen.shape[2] == 1 else seen

    def _range(self, scale: DepthScale | None) -> Range:
        if not self.is_deep:
            return 0.0, 2.0**self.bits - 1
        found = None if scale is None else scale.of(self.kind)
        return settle_range(self.kind, [self.facts])[0] if found is None else found


def scale_to_bytes(values: Numbers, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Scale values so that a range becomes 0 to 255; what is beyond it is cut off.

    Args:
        values: Any shape, finite.
        low: Becomes 0.
        high: Becomes 255; above `low`.

    Returns:
        The same shape.
    """
    if values.dtype.kind == "u" and values.itemsize <= 2:  # a table is quicker, and takes an eighth of the memory
        table = scale_to_bytes(np.arange(2 ** (_BYTE * values.itemsize), dtype=np.float64), low, high)
        return np.take(table, values)
    scaled = values.astype(np.float64)
    scaled.clip(low, high, out=scaled)  # first: a float may be too large to be scaled
    scaled -= low
    with np.errstate(over="ignore"):  # far outside the range: black or white
        scaled *= 255.0 / (high - low)
    return np.rint(scaled.clip(0.0, 255.0, out=scaled), out=scaled).astype(np.uint8)


def _count_levels(values: Numbers, kind: Kind) -> tuple[tuple[int, int], ...]:
    """Count values by their level, see `depth_scale.full_scale`.

    Args:
        values: Of any shape.
        kind: Of the numbers.

    Returns:
        (level, number) ascending; values not above 0 are of level DARKEST.
    """
    if values.dtype.kind == "u" and values.itemsize * _BYTE <= _MOST_COUNTED_BITS:
        counts = np.bincount(values.ravel())
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        counts = None
    exact = values.astype(np.float64).clip(0.0)
    exact += (exact > 0) if kind == "whole" else (exact > _FIRST_COUNT)
    return _counted(_power_above(exact), counts)


def _count_below_zero(values: Numbers) -> tuple[tuple[int, int], ...]:
    exact = values.astype(np.float64)
    return _counted(_power_above(-exact[exact < 0]), None)


def _power_above(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Return for each value, 0 or more, the smallest n with 2^n not below it; of 0, DARKEST."""
    mantissa, powers = np.frexp(values)
    powers -= mantissa == 0.5
    np.clip(powers, *LEVELS, out=powers)
    powers[mantissa == 0.0] = DARKEST
    return powers


def _counted(levels: npt.NDArray[np.int32], counts: npt.NDArray[np.int64] | None) -> tuple[tuple[int, int], ...]:
    if not levels.size:
        return ()
    start = int(levels.min())
    found = np.bincount((levels - start).ravel(), weights=counts)
    return tuple((start + int(place), int(found[place])) for place in np.flatnonzero(found))


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


def read_deep(data: bytes, significant: int) -> Samples:
    """Decode a PNG with 16-bit channels; OpenCV keeps all their bits, Pillow does not.

    Args:
        data: A whole file whose declared size was found acceptable.
        significant: As of `Samples`.

    Raises:
        ValueError: It cannot be decoded.
    """
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("its pixels cannot be read")
    if values.ndim == 2:
        return Samples(values[:, :, None], 16, significant=significant)
    if values.shape[2] not in (3, 4):
        raise UnsupportedImageError(f"{values.shape[2]} channels are no colours; save it as RGB or grey")
    alpha = values[:, :, 3:].astype(np.float64) / 65_535.0 if values.shape[2] == 4 else None
    return Samples(values[:, :, 2::-1], 16, alpha, significant=significant)
