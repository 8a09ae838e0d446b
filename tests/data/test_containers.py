"""What lies around a picture in PNG and BMP files neither keeps it out nor passes for it."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, PngImagePlugin

from transferlib.data.containers import png_picture
from transferlib.data.decode import BadImageError, Limits, decode_image

LIMITS = Limits(10**6, 10**8)
COLOUR_TYPES = {0: 1, 2: 3, 4: 2, 6: 4}
"""Samples a pixel, by PNG's colour type."""


def seen(data: bytes) -> npt.NDArray[np.uint8]:
    return decode_image(data, short_side=None, limits=LIMITS).pixels


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def deep_png(values: npt.NDArray[np.uint16], colour_type: int, *extra: bytes, frames: str = "") -> bytes:
    """Return a 16-bit PNG; of several frames the first is the picture, or ("hidden") it is none of them."""
    height, width = values.shape[:2]
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    other = zlib.compress(b"".join(b"\0" + bytes(2 * width * COLOUR_TYPES[colour_type]) for _ in range(height)))
    control = [chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, width, height, 0, 0, 1, 10, 0, 0)) for n in range(3)]
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
    parts += [chunk(b"acTL", struct.pack(">II", 2, 0))] if frames else []
    parts += [control[0]] if frames == "first" else []
    parts += [*extra, chunk(b"IDAT", rows)]
    if frames:
        number = 1 if frames == "first" else 0
        parts += [control[number], chunk(b"fdAT", struct.pack(">I", number + 1) + other)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour_type", "frames"), list(product(COLOUR_TYPES, ("", "first", "hidden"))))
def test_a_deep_png_shows_its_picture_whatever_frames_follow(colour_type: int, frames: str) -> None:
    values = np.random.default_rng(colour_type).integers(0, 2**16, (5, 7, COLOUR_TYPES[colour_type]), dtype=np.uint16)
    values[0, 0], values[0, 1] = 65535, 0
    share = values / 65535
    alpha = share[:, :, -1:] if colour_type in (4, 6) else np.ones((5, 7, 1))
    colours = share[:, :, : (3 if colour_type in (2, 6) else 1)]
    wanted = np.broadcast_to(255 * (colours * alpha + 1 - alpha), (5, 7, 3))
    assert np.abs(seen(deep_png(values, colour_type, frames=frames)) - wanted).max() <= 1


@pytest.mark.parametrize("colour_type", [0, 2])
def test_a_colour_that_is_called_transparent_is_white(colour_type: int) -> None:
    values = np.random.default_rng(1).integers(300, 2**16, (5, 7, COLOUR_TYPES[colour_type]), dtype=np.uint16)
    values[2, 3], values[0, 0] = 123, 65535
    clear = chunk(b"tRNS", values[2, 3].astype(">u2").tobytes())
    found = seen(deep_png(values, colour_type, clear))
    assert found[2, 3].tolist() == [255, 255, 255]
    assert np.abs(found[3].astype(float) - values[3] / 257).max() <= 1


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("kind", ["text", "compressed", "international", "xmp", "profile"])
def test_a_long_text_or_profile_beside_a_picture_is_skipped(kind: str, where: str) -> None:
    """They were refused as truncated or broken: Pillow takes a megabyte."""
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    info, long = PngImagePlugin.PngInfo(), "x" * 3_000_000
    if kind in ("text", "compressed"):
        info.add_text("Comment", long, zip=kind == "compressed")
    elif kind in ("international", "xmp"):
        info.add_itxt("XML:com.adobe.xmp" if kind == "xmp" else "Comment", long, zip=True)
    else:
        info.add(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000)), after_idat=where == "after")
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", pnginfo=info)
    assert (seen(file.getvalue()) == picture).all()


def test_an_orientation_in_a_text_is_still_applied() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", pnginfo=info)
    before = np.asarray(Image.open(io.BytesIO(file.getvalue())).transpose(Image.Transpose.ROTATE_180))
    assert (seen(file.getvalue()) == before).all()


@pytest.mark.parametrize("is_compressed", [True, False])
def test_an_orientation_as_imagemagick_writes_it_is_applied(is_compressed: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    raw = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=is_compressed)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", pnginfo=info)
    assert (seen(file.getvalue()) == np.rot90(picture, -1)).all()


@pytest.mark.parametrize("header", [40, 52, 56, 108, 124])
def test_a_bmp_of_5_6_and_5_bits_is_read_under_every_header(header: int) -> None:
    """OpenCV was asked, as if it were deep, and refuses all but the first."""
    generator = np.random.default_rng(0)
    red, green, blue = (generator.integers(0, top, (4, 8)) for top in (32, 64, 32))
    rows = ((red << 11) | (green << 5) | blue).astype("<u2")[::-1].tobytes()
    core = struct.pack("<IiiHHIIiiII", header, 8, 4, 1, 16, 3, len(rows), 2835, 2835, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F) + bytes(4 if header >= 56 else 0)
    body = core + masks + bytes(max(header - 56, 0))
    data = b"BM" + struct.pack("<IHHI", 14 + len(body) + len(rows), 0, 0, 14 + len(body)) + body + rows
    wanted = np.stack([red * 255 / 31, green * 255 / 63, blue * 255 / 31], axis=2)
    assert np.abs(seen(data) - wanted).max() <= 1


def test_a_png_that_is_cut_off_stays_as_it_is() -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "PNG")
    for length in range(8, len(file.getvalue())):
        cut = file.getvalue()[:length]
        assert png_picture(cut) == cut


def shallow_png(stored: bytes, width: int, height: int, depth: int, colour_type: int, *extra: bytes) -> bytes:
    """Return a PNG of rows as they are stored, each behind its filter's byte."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(stored)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("depth", "clear"), [(2, 1), (4, 5), (8, 85)])
def test_a_grey_that_is_called_transparent_is_white_at_any_depth(depth: int, clear: int) -> None:
    values = {2: b"\0\x1b", 4: b"\0\x05\xaf", 8: bytes((0, 0, 85, 170, 255))}[depth]
    data = shallow_png(values, 4, 1, depth, 0, chunk(b"tRNS", struct.pack(">H", clear)))
    assert seen(data)[0, :, 0].tolist() == [0, 255, 170, 255]


@pytest.mark.parametrize("rows", [0, 1, 31, 63])
@pytest.mark.parametrize("colour_type", [0, 2, 4, 6])
def test_rows_that_are_missing_are_told_though_the_file_ends_well(rows: int, colour_type: int) -> None:
    row = b"\0" + bytes(range(64)) * COLOUR_TYPES[colour_type]
    seen(shallow_png(row * 64, 64, 64, 8, colour_type))
    with pytest.raises(BadImageError, match=f"truncated: {rows} of 64 rows"):
        seen(shallow_png(row * rows, 64, 64, 8, colour_type))


def test_any_flipped_bit_of_a_picture_is_told() -> None:
    slope = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(slope).save(buffer, "PNG")
    whole = buffer.getvalue()
    wanted = seen(whole)
    for place in range(8 * 8, 8 * len(whole), 7):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        try:
            found = seen(bytes(flipped))
        except BadImageError:
            continue
        assert np.array_equal(found, wanted), place


@pytest.mark.parametrize("kind", [b"gAMA", b"cHRM", b"pHYs", b"tIME", b"bKGD"])
def test_hints_that_are_broken_keep_no_picture_out(kind: bytes) -> None:
    broken = chunk(kind, b"\1\2\3\4")[:-4] + b"none"
    assert seen(shallow_png(b"\0\x80", 1, 1, 8, 0, broken)).tolist() == [[[128, 128, 128]]]
