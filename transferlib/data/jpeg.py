"""Is a JPEG's picture all there? libjpeg fills what is missing with grey and warns of it; Pillow does not listen.

So the decoder gets the picture without its end marker, and some zeros instead. While data are missing it waits for
more, which Pillow reports; with the marker it would make up the rest. A picture of one scan is decoded and judged in
one go. One of several scans (progressive) is read whole before its first row comes out, so it is judged by passes of
its own: 5 ms for a photo of 500 pixels instead of 3.

Zeros in a row come from a hole in a copy (a sparse file, an unfinished download) or from tables made for a flat
picture. After a hole, scan and data do not end together.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image, ImageFile

_START, _SCAN, _END = 0xD8, 0xDA, 0xD9
_RESTARTS = bytes(range(0xD0, 0xD8))
_STANDALONE = frozenset({0x01, _START, *_RESTARTS})
"""Markers without a length: TEM, SOI and the restarts."""
_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2})
"""Frames whose decoder can wait: baseline, extended, progressive. With arithmetic coding libjpeg cannot."""
_AHEAD = bytes(8)
"""As many bytes as libjpeg may read beyond the bits that it needs."""
_HOLE = bytes(256)
_LAST = 2
"""Bytes at the end of data without which no picture is whole."""
_SHORT = "incomplete, its data end before the picture does"
_ZEROS = "incomplete, zeros stand where a part of the picture was"
_LEFT = re.compile(r"\((\d+) bytes not processed\)")
"""What Pillow says of a decoder that waits."""


class _Scan(NamedTuple):
    start: int
    """Of the marker."""
    end: int
    """Where the next marker begins that is no restart."""
    restarts: tuple[tuple[int, int], ...]
    """Marker and place of each."""


def load_jpeg(image: ImageFile.ImageFile, data: bytes) -> None:
    """Decode an opened JPEG, unless a part of it is missing.

    Args:
        image: Opened, perhaps with a draft.
        data: The whole file.

    Raises:
        OSError: There is no end marker after a scan, data end before the picture does, or zeros stand where a part of
            it was. Other types for what is broken otherwise.
    """
    can_wait, scans = _scans(data)
    if not scans:
        raise OSError("incomplete, there is no end marker after the picture")
    if can_wait:
        if any(_has_hole(data, scan) for scan in scans):
            raise OSError(_ZEROS)
        whole = data[: scans[-1].end] + 2 * _AHEAD
        if len(scans) == 1:
            image.fp = io.BytesIO(whole)
        elif _is_waiting(whole):
            raise OSError(_SHORT)
    try:
        image.load()
    except OSError as error:
        raise OSError(_SHORT) from None if _LEFT.search(str(error)) else error


def _has_hole(data: bytes, scan: _Scan) -> bool:
    """Say whether there are zeros in a row in a scan and, because of them, restarts are missing or ends do not meet."""
    hole = data.find(_HOLE, scan.start, scan.end)
    if hole < 0:
        return False
    is_last = data.startswith(bytes([0xFF, _END]), scan.end)
    if is_last and not _is_waiting(data[:hole] + 2 * _AHEAD):  # an encoder may leave anything behind the picture
        return False
    markers = bytes(marker for marker, _ in scan.restarts)
    if not (_RESTARTS * (len(markers) // len(_RESTARTS) + 1)).startswith(markers):
        return True
    end = next((place for _, place in scan.restarts if place > hole), scan.end)
    last = len(data[:end].rstrip(b"\0\xff")) - _LAST
    is_early = hole + len(_HOLE) < last and not _is_waiting(data[:last])
    return is_early or _is_waiting(data[:end] + 2 * _AHEAD)


def _is_waiting(data: bytes) -> bool:
    """Say whether a decoder that has read these data waits for more of a scan, not for a marker after it.

    Before a marker (a restart too, so a cut right before one of several scans is not seen) it skips what is none, so
    nothing is left. In a scan something is left, unless it has just filled
    its register: so it is asked one byte before, too.

    Args:
        data: The beginning of a JPEG.
    """
    return _count_left(data) > 0 or _count_left(data[:-1]) > 0


def _count_left(data: bytes) -> int:
    """Return how many bytes wait for others; 0 where the picture is complete, too."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        try:
            image.load()
        except OSError as error:
            found = _LEFT.search(str(error))
            return int(found[1]) if found else 0
    return 0


def _scans(data: bytes) -> tuple[bool, list[_Scan]]:
    """Return whether the decoder of a JPEG's first picture can wait, and its scans; none: it has no end."""
    can_wait, start = False, -1
    scans: list[_Scan] = []
    restarts: list[tuple[int, int]] = []
    for marker, place in _markers(data):
        can_wait |= marker in _HUFFMAN
        if marker in _RESTARTS:
            restarts.append((marker, place))
            continue
        if start >= 0:
            scans.append(_Scan(start, place, tuple(restarts)))
        start, restarts = place if marker == _SCAN else -1, []
        if marker == _END:
            return can_wait, scans
    return can_wait, []


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers of a JPEG in order, each with its place, those inside the segments' own bytes left out.

    Source: ITU-T T.81, annex B (markers never occur inside entropy-coded data, where FF is followed by 00).
    """
    place = 0
    while (place := data.find(b"\xff", place)) >= 0 and place + 1 < len(data):
        marker = data[place + 1]
        if marker in (0x00, 0xFF):  # stuffing, or filling before a marker
            place += 1 if marker else 2
            continue
        yield marker, place
        place += 2
        if marker == _END:
            return
        if marker not in _STANDALONE:
            place += int.from_bytes(data[place : place + 2], "big")
