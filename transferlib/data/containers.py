"""How PNG and JPEG files are put together: chunks and markers, read without decoding a pixel."""

from __future__ import annotations

from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"
_LEFT_OUT = (b"acTL", b"fcTL", b"fdAT", b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Further frames, texts and profiles: nothing of the picture as we read it."""
_TURNS = (b"XML:com.adobe.xmp\0\0", b"Raw profile type exif\0")
"""Texts that may say how the picture is turned: XMP that is not compressed, and EXIF as ImageMagick writes it."""
_LONGEST_TURN = 1 << 20
"""Bytes of such a chunk; Pillow takes a megabyte."""
_START, _SCAN, _END = 0xD8, 0xDA, 0xD9
_STANDALONE = frozenset({0x01, _START, *range(0xD0, 0xD8)})
"""JPEG markers without a length: TEM, SOI and the restarts."""


def png_picture(data: bytes) -> bytes:
    """Return a PNG without what is no part of its first picture, for readers that stumble over that.

    Pillow refuses a picture beside which there is a megabyte of text, and readers differ on animations.

    Args:
        data: A whole file. What follows a chunk that is cut off stays as it is.
    """
    kept, place = [data[: len(PNG_START)]], len(PNG_START)
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            break
        is_turn = data.startswith(_TURNS, place + 8) and end - place < _LONGEST_TURN
        if data[place + 4 : place + 8] not in _LEFT_OUT or is_turn:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])


def is_whole_jpeg(data: bytes) -> bool:
    """Say whether a JPEG's last scan is followed by an end marker.

    A file whose tail was lost on the way and filled with zeros decodes without complaint, grey from there on.

    Args:
        data: A whole file.

    Source: ITU-T T.81, annex B (markers never occur inside entropy-coded data, where FF is followed by 00).
    """
    has_scan = False
    for marker in _markers(data):
        has_scan |= marker == _SCAN
        if marker == _END and has_scan:
            return True
    return False


def _markers(data: bytes) -> Iterator[int]:
    """Yield the markers of a JPEG in order, those inside the segments' own bytes left out."""
    place = 0
    while (place := data.find(b"\xff", place)) >= 0 and place + 1 < len(data):
        marker = data[place + 1]
        if marker in (0x00, 0xFF):  # stuffing, or filling before a marker
            place += 1 if marker else 2
            continue
        yield marker
        place += 2
        if marker == _END:
            return
        if marker not in _STANDALONE:
            place += int.from_bytes(data[place : place + 2], "big")
