"""How PNG, HEIF and JPEG 2000 files are put together: chunks, boxes and segments, read without decoding a pixel."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"
_LEFT_OUT = frozenset(
    {
        *(b"acTL", b"fcTL", b"fdAT", b"tEXt", b"zTXt", b"iTXt", b"iCCP"),
        *(b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"hIST", b"sPLT", b"bKGD"),
    }
)
"""Further frames, texts, profiles and hints: nothing of the picture as we read it."""
_PICTURE = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT"})
_TURNS = (b"XML:com.adobe.xmp\0\0", b"Raw profile type exif\0")
"""Texts that may say how the picture is turned: XMP that is not compressed, and EXIF as ImageMagick writes it."""
_LONGEST_TURN = 1 << 20
"""Bytes of such a chunk; Pillow takes a megabyte."""
_INFLATED_AT_ONCE = 1 << 20
_COLOUR_TYPE = 25
"""Where a PNG says it: after width, height and depth."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type."""
_DEEP_BITS = 16
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_ANY_BRANDS = frozenset({b"mif1", b"msf1"})
_CODESTREAM = b"\xff\x4f\xff\x51"
_PRECISION = 42
"""Of a JPEG 2000's first component, after the start of the codestream."""


def png_picture(data: bytes) -> bytes:
    """Return a PNG without what is no part of its first picture, for readers that stumble over that.

    Pillow refuses a picture beside which there is a megabyte of text, and readers differ on animations.

    Args:
        data: A whole file. What follows a chunk that is cut off stays as it is.
    """
    kept, place = [data[: len(PNG_START)]], len(PNG_START)
    for kind, start, end in _chunks(data):
        is_turn = data.startswith(_TURNS, start + 8) and end - start < _LONGEST_TURN
        if kind not in _LEFT_OUT or is_turn:
            kept.append(data[start:end])
        place = end
    return b"".join([*kept, data[place:]])


def png_significant_bits(data: bytes) -> int:
    """Return how many bits of a 16-bit PNG's colours are significant, as its sBIT chunk has it; 0: it does not say.

    Args:
        data: A whole file.

    Source: PNG specification (third edition), 11.3.3.4; channels may differ, the largest counts.
    """
    colours = {0: 1, 2: 3, 4: 1, 6: 3}.get(data[_COLOUR_TYPE], 0) if len(data) > _COLOUR_TYPE else 0
    for kind, start, end in _chunks(data):
        if kind == b"sBIT":
            bits = max(data[start + 8 : end - 4][:colours], default=0)
            return bits if bits <= _DEEP_BITS else 0
        if kind == b"IDAT":
            break
    return 0


def png_grey_step(data: bytes) -> int:
    """Return what a PNG's stored grey is multiplied by in 8 bits, 1 for other pictures.

    Args:
        data: A whole file.
    """
    depth, colour_type = data[_COLOUR_TYPE - 1 : _COLOUR_TYPE + 1] if len(data) > _COLOUR_TYPE else (8, 0)
    return 255 // (2**depth - 1) if colour_type == 0 and depth in (2, 4) else 1


def png_problem(data: bytes) -> str:
    """Return what is wrong with a PNG that readers show all the same; empty: nothing, or what they tell themselves.

    They look at no checksum of the picture, and rows that are missing where the stream ends well stay black.

    Args:
        data: A whole file.

    Source: PNG specification (third edition), 5.3 and 7.2.
    """
    needed = seen = row = 0
    stream = zlib.decompressobj()
    for kind, start, end in _chunks(data):
        if kind in _PICTURE and zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"broken: the checksum of its {kind.decode()} chunk does not fit"
        if kind == b"IHDR" and end - start == 25:
            width, height, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", data[start + 8 : end - 4])
            row = 1 + (width * _CHANNELS.get(colour_type, 0) * depth + 7) // 8
            needed = 0 if interlace else height * row
        rest = data[start + 8 : end - 4] if kind == b"IDAT" else b""
        while rest and seen < needed and not stream.eof:
            try:
                seen += len(stream.decompress(rest, _INFLATED_AT_ONCE))
            except zlib.error:
                return ""
            rest = stream.unconsumed_tail
        if kind == b"IEND" and seen < needed:
            return f"truncated: {seen // row} of {needed // row} rows"
    return ""


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield a PNG's chunks up to one that is cut off: kind, start and end."""
    place = len(PNG_START)
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            return
        yield data[place + 4 : place + 8], place, end
        place = end


def is_heif(data: bytes) -> bool:
    """Say whether a file is HEIF and not AVIF, which is kept in the same boxes.

    The first brand may say no more than that there are pictures (`mif1`, `msf1`); then the others tell what codes them.

    Args:
        data: A whole file.

    Source: ISO/IEC 23008-12, annex B; AV1 Image File Format 1.1, section 6.
    """
    first = data[8:12]
    if data[4:8] != b"ftyp" or first not in _HEIF_BRANDS | _ANY_BRANDS:
        return False
    brands = data[16 : int.from_bytes(data[:4], "big")]
    others = {brands[place : place + 4] for place in range(0, len(brands), 4)}
    return first in _HEIF_BRANDS or not others & _AVIF_BRANDS


def jpeg2000_bits(data: bytes) -> int:
    """Return how many bits a sample of a JPEG 2000's first component has; 16 where that cannot be read.

    Args:
        data: A whole file.

    Source: ITU-T T.800, annex A.5.1 (the SIZ segment follows the start of the codestream).
    """
    start = data.find(_CODESTREAM)
    place = start + _PRECISION
    if start < 0 or place >= len(data):
        return _DEEP_BITS
    return min((data[place] & 0x7F) + 1, _DEEP_BITS)
