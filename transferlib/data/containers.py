"""How PNG, HEIF and JPEG 2000 files are put together: chunks, boxes and segments, read without decoding a pixel."""

from __future__ import annotations

from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"
_LEFT_OUT = (b"acTL", b"fcTL", b"fdAT", b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Further frames, texts and profiles: nothing of the picture as we read it."""
_TURNS = (b"XML:com.adobe.xmp\0\0", b"Raw profile type exif\0")
"""Texts that may say how the picture is turned: XMP that is not compressed, and EXIF as ImageMagick writes it."""
_LONGEST_TURN = 1 << 20
"""Bytes of such a chunk; Pillow takes a megabyte."""
_COLOUR_TYPE = 25
"""Where a PNG says it: after width, height and depth."""
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
