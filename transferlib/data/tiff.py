"""TIFF: what its tags say, first; then pixels by whoever reads that kind right; what nobody does is refused by name.

Pillow reads 8-bit pictures, OpenCV 16-bit colour under every compression; of deep planes, extra bands, premultiplied or
inverted deep values either gives other pixels without a word. tifffile (Christoph Gohlke's) gives the stored numbers of
any of them, but of few compressions without its codecs.
"""

from __future__ import annotations

import io
import logging
import math
import zlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, TiffImagePlugin

from transferlib.data.depth import Samples, UnsupportedImageError
from transferlib.data.depth_scale import CONTAINERS, Range

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
"""Photometric interpretations. Source: TIFF 6.0, section 8 and part 3."""
PREMULTIPLIED, STRAIGHT = 1, 2
"""Kinds of extra samples that are alpha. Source: TIFF 6.0, section 18."""
_DEFLATED = (8, 32946)
"""Compressions: zlib's, as Adobe numbers it and as it was numbered before."""
_ROOM = 1 << 20
"""Bytes beyond what is declared, and inflated at once."""
UNSIGNED = 1
"""Sample format."""
_COLOURS = 3
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What a picture of each EXIF orientation is turned by."""

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong becomes the file's reason


@dataclass(frozen=True)
class TiffTags:
    """Hold what the header of a TIFF's first page says of its samples."""

    width: int
    """As stored, pixels."""
    height: int
    orientation: int
    """1 to 8, EXIF's."""
    bits: tuple[int, ...]
    """Of each sample (tag 258)."""
    compression: int
    photometric: int
    """Tag 262."""
    samples: int
    """A pixel (tag 277)."""
    is_planar: bool
    """Whether each sample has a plane of its own (tag 284)."""
    extra: tuple[int, ...]
    """Kinds of the samples beyond the colours (tag 338)."""
    formats: tuple[int, ...]
    """1 unsigned, 2 signed, 3 float (tag 339)."""
    limits: Range | None
    """Smallest and largest value that is meant (tags 340 and 341); None: not said. Tags 280 and 281 are statistics."""
    colour_map: tuple[int, ...] = ()
    """Red of each colour, then green, then blue, 16 bits each (tag 320)."""
    pieces: tuple[tuple[int, int], ...] = ()
    """Offset and length of each strip or tile, bytes (tags 273 and 279, or 324 and 325)."""

    @property
    def alpha(self) -> int:
        """Return the kind of alpha that follows the colours; 0: none."""
        kind = self.extra[0] if self.extra else 0
        return kind if kind in (PREMULTIPLIED, STRAIGHT) else 0

    @property
    def has_small_map(self) -> bool:
        """Say whether the colour map's values were left at 8 bits.

        Source: libtiff 4.7, `checkcmap` of tif_getimage.c.
        """
        return 0 < max(self.colour_map, default=0) < 256

    @property
    def lacks_colours(self) -> bool:
        """Say whether it is a palette picture whose map has not a colour for each number that a sample can hold."""
        return (
            self.photometric == PALETTE and self.samples == 1 and len(self.colour_map) != _COLOURS * 2 ** self.bits[0]
        )

    @property
    def is_plain(self) -> bool:
        """Return whether Pillow reads this kind as it is meant."""
        if len(set(self.bits)) != 1 or set(self.formats) != {UNSIGNED} or self.bits[0] not in (1, 2, 4, 8):
            return False
        if self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE):
            return self.samples == 1 and not self.has_small_map and not self.lacks_colours
        if self.bits[0] != 8:
            return False
        if self.photometric == RGB and self.samples == 4:
            return bool(self.alpha) and not self.is_planar
        if self.photometric == LAB and self.is_planar:
            return False  # Pillow takes the planes' signs for those of pixels
        is_colour = {RGB: 3, YCBCR: 3, LAB: 3, SEPARATED: 4}.get(self.photometric) == self.samples
        return is_colour and not self.extra

    @property
    def is_plain_deep(self) -> bool:
        """Return whether OpenCV reads this kind as it is meant: 16-bit grey or RGB without anything else."""
        is_deep = set(self.bits) == {16} and set(self.formats) == {UNSIGNED} and not self.is_planar
        grey, colour = (BLACK_IS_ZERO, 1), (RGB, 3)
        return is_deep and not self.extra and (self.photometric, self.samples) in (grey, colour)

    def __str__(self) -> str:
        bits = "/".join(map(str, dict.fromkeys(self.bits)))
        kind = {1: "", 2: " signed", 3: " float", 6: " complex"}.get(self.formats[0] if self.formats else 1, " odd")
        planes = ", in planes" if self.is_planar and self.samples > 1 else ""
        extra = f", extra samples {list(self.extra)}" if self.extra else ""
        return (
            f"TIFF of {self.samples} samples of {bits}{kind} bits, photometric {self.photometric}{extra}{planes}, "
            f"compression {self.compression}"
        )


def read_tags(data: bytes) -> TiffTags:
    """Read the header of a TIFF's first page.

    Args:
        data: A whole file.

    Raises:
        Exception: Of many types, where the header is broken.
    """
    file = io.BytesIO(data)
    is_big = data[2:4] in (b"+\0", b"\0+")  # BigTIFF's header is twice as long
    directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if is_big else 8))
    file.seek(directory.next)
    directory.load(file)
    if not {256, 257} <= set(directory):
        raise ValueError("its header names no width and height")
    samples = int(directory.get(277, 1))
    return TiffTags(
        width=int(directory[256]),
        height=int(directory[257]),
        orientation=int(directory.get(274, 1)),
        bits=_numbers(directory.get(258, 1)),
        compression=int(directory.get(259, 1)),
        photometric=int(directory.get(262, RGB if samples >= _COLOURS else BLACK_IS_ZERO)),
        samples=samples,
        is_planar=int(directory.get(284, 1)) == 2 and samples > 1,
        extra=_numbers(directory.get(338, ())),
        formats=_numbers(directory.get(339, UNSIGNED)),
        limits=_limits(directory.get(340, 0), directory.get(341)),
        colour_map=_numbers(directory.get(320, ())),
        pieces=tuple(
            (offset, length)
            for starts, lengths in ((273, 279), (324, 325))
            for offset, length in zip(
                _numbers(directory.get(starts, ())), _numbers(directory.get(lengths, ())), strict=False
            )
        ),
    )


def check_deflated(data: bytes, tags: TiffTags) -> None:
    """Hold what is deflated in a TIFF against its own checksums, which libtiff does not look at.

    Args:
        data: A whole file whose declared size was found acceptable.
        tags: Its header.

    Raises:
        ValueError: A checksum does not agree. What is damaged otherwise is left to who reads the pixels.
    """
    if tags.compression not in _DEFLATED:
        return
    left = tags.width * tags.height * sum(tags.bits) // 8 + _ROOM
    for offset, length in tags.pieces:
        inflating, piece = zlib.decompressobj(), data[offset : offset + length]
        while piece and not inflating.eof and left > 0:
            try:
                left -= len(inflating.decompress(piece, _ROOM))
            except zlib.error as error:
                if "data check" not in str(error):
                    return
                raise ValueError("damaged: the checksum of its pixels does not agree") from None
            piece = inflating.unconsumed_tail


def read_tiff(data: bytes, tags: TiffTags) -> tuple[Samples, bool]:
    """Decode a TIFF that Pillow would not read as it is meant.

    Colours are the first three samples of RGB, and of "black is zero" with three or four; one or two samples are grey
    with perhaps alpha. What is beyond that is no colour and is left out.

    Args:
        data: A whole file whose declared size was found acceptable.
        tags: Its header.

    Returns:
        The numbers, and whether they are turned as they are to be seen already.

    Raises:
        UnsupportedImageError: No reader reads this kind right, or values are not finite.
        Exception: Of many types, where the file is broken.
    """
    if tags.lacks_colours:
        raise ValueError(f"its colour map has {len(tags.colour_map):,} values, not {_COLOURS * 2 ** tags.bits[0]:,}")
    if tags.photometric == PALETTE and tags.samples == 1 and tags.has_small_map:
        return _of_small_map(data, tags), True
    try:
        values, is_turned = _values(data, tags)
    except Exception:
        if tags.compression in TiffImagePlugin.COMPRESSION_INFO:
            raise
        raise _unread(tags) from None
    num_colours = _COLOURS if tags.samples >= _COLOURS else 1
    is_known = tags.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) and (
        tags.samples <= 4 or tags.photometric == RGB
    )
    if not is_known or len(set(tags.bits)) != 1 or values.dtype.kind not in "uif":
        raise UnsupportedImageError(f"a {tags} is no picture that can be read; save it as 8- or 16-bit RGB or grey")
    colours, bits = values[:, :, :num_colours], tags.bits[0]
    is_inverted = tags.photometric == WHITE_IS_ZERO
    if is_inverted:
        if values.dtype.kind != "u":
            raise UnsupportedImageError(f"a {tags} is no picture that can be read; save it with black as zero")
        colours = values.dtype.type(2**bits - 1) - colours
    alpha = None
    if tags.alpha and tags.samples > num_colours:
        full = {"u": 2.0**bits - 1, "i": 2.0 ** (bits - 1) - 1, "f": 1.0}[values.dtype.kind]
        alpha = (values[:, :, num_colours:][:, :, :1].astype(np.float64) / full).clip(0.0, 1.0)
    samples = Samples(
        colours,
        bits,
        alpha,
        is_premultiplied=tags.alpha == PREMULTIPLIED,
        # What is inverted is so from its full scale.
        declares_bits=values.dtype.kind == "u" and (is_inverted or bits not in CONTAINERS),
        limits=None if is_inverted else tags.limits,
    )
    return samples, is_turned


def _unread(tags: TiffTags) -> UnsupportedImageError:
    return UnsupportedImageError(f"a {tags} is not read under this compression; save it uncompressed or deflated")


def _values(data: bytes, tags: TiffTags) -> tuple[npt.NDArray[Any], bool]:
    """Return the numbers as they are stored, [H, W, samples], and whether they are turned already."""
    if tags.is_plain_deep and tags.compression in TiffImagePlugin.COMPRESSION_INFO:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None:
            raise ValueError("its pixels cannot be read")
        return found[:, :, None] if found.ndim == 2 else found[:, :, ::-1], True  # whatever it is asked
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        try:
            stored = page.asarray()
        except (ValueError, NotImplementedError, ImportError) as error:
            is_codec = isinstance(error, ImportError) or "imagecodecs" in str(error) or "not supported" in str(error)
            if not is_codec:
                raise
            if tags.samples == 1 and tags.photometric == BLACK_IS_ZERO:
                return _pillows_grey(data, tags), True
            raise _unread(tags) from None
    if stored.dtype.kind == "b":
        stored = stored.astype(np.uint8)
    if tags.samples == 1:
        return stored.reshape(tags.height, tags.width, 1), False
    if tags.is_planar:
        stored = np.moveaxis(stored.reshape(tags.samples, tags.height, tags.width), 0, -1)
    return stored.reshape(tags.height, tags.width, tags.samples), False


def _pillows_grey(data: bytes, tags: TiffTags) -> npt.NDArray[Any]:
    """Return deep grey values under a compression that only libtiff reads, [H, W, 1], turned."""
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
        if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
            raise _unread(tags)
        return np.asarray(image)[:, :, None]


def _of_small_map(data: bytes, tags: TiffTags) -> Samples:
    """Return the colours of a palette picture, of which Pillow reads the places right and the colours not, turned."""
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
        if image.mode != "P":
            raise _unread(tags)
        places = np.asarray(image)
    return Samples(np.array(tags.colour_map, np.uint8).reshape(_COLOURS, -1).T[places], 8)


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(one) for one in value) if isinstance(value, tuple | list) else (int(value),)


def _limits(low: Any, high: Any) -> Range | None:
    """Return what tags 340 and 341 say, over the samples; None where that is no range."""
    try:
        lowest, highest = (
            [float(one) for one in (value if isinstance(value, tuple | list) else (value,))] for value in (low, high)
        )
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    found = min(lowest, default=0.0), max(highest, default=0.0)
    return found if math.isfinite(found[0]) and math.isfinite(found[1]) and found[0] < found[1] else None
