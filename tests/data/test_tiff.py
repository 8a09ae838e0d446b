"""Every kind of TIFF that can be written here is either read as it is meant, or refused by what it is."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from importlib.metadata import version
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from transferlib.data import decode
from transferlib.data.decode import BadImageError, Limits, decode_image
from transferlib.data.tiff import TURNS, check_deflated, read_tags

LIMITS = Limits(10**6, 10**6)
Pixels = npt.NDArray[np.uint8]


def picture(channels: int, height: int = 20, width: int = 30) -> Pixels:
    """Return values 0 to 255 that reach both ends, [H, W, channels], different in every channel."""
    values = np.random.default_rng(channels).integers(0, 256, (height, width, channels), dtype=np.uint8)
    values[0, 0], values[0, 1] = 0, 255
    return values


def written(values: npt.NDArray[Any], **options: Any) -> bytes:
    """Return a TIFF of values [H, W, S] (or [H, W]); of planes where `planarconfig` says so."""
    if options.get("planarconfig") == "separate":
        values = np.moveaxis(values, -1, 0)
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def seen(data: bytes) -> Pixels:
    return decode_image(data, short_side=None, limits=LIMITS).pixels


DEPTHS = {
    "uint8": lambda values: values,
    "uint16": lambda values: values.astype(np.uint16) * 257,
    "uint32": lambda values: values.astype(np.uint32) * 0x01010101,
    "int16": lambda values: values.astype(np.int16),
    "float16": lambda values: (values / 255).astype(np.float16),
    "float32": lambda values: (values / 255).astype(np.float32),
    "float64": lambda values: values / 255,
}


@pytest.mark.parametrize(
    ("depth", "planes", "order", "compression"),
    list(product(DEPTHS, ("contig", "separate"), "<>", (None, "zlib"))),
)
def test_rgb_of_every_depth_layout_order_and_compression(
    depth: str, planes: str, order: str, compression: str | None
) -> None:
    """Planar deep RGB was striped, or memory that nobody had written: one file, five pictures in one process."""
    wanted = picture(3)
    data = written(
        DEPTHS[depth](wanted), photometric="rgb", planarconfig=planes, byteorder=order, compression=compression
    )
    first = seen(data)
    assert np.abs(first.astype(int) - wanted).max() <= 1
    assert (seen(data) == first).all()


@pytest.mark.parametrize(("depth", "planes"), list(product(("uint8", "uint16", "float32"), ("contig", "separate"))))
@pytest.mark.parametrize("extra", [(), ("unspecified",), ("unassalpha",), ("assocalpha",)])
def test_a_fourth_sample_is_alpha_only_where_the_tags_say_so(depth: str, planes: str, extra: tuple[str, ...]) -> None:
    """Near infrared was taken for alpha, and premultiplied colours were multiplied again."""
    colours, fourth = picture(3), picture(1)
    share = fourth / 255.0
    stored = np.concatenate([colours, fourth], axis=2)
    wanted = colours.astype(float)
    if extra == ("unassalpha",):
        wanted = colours * share + 255 * (1 - share)
    if extra == ("assocalpha",):
        stored[:, :, :3] = np.rint(colours * share)
        wanted = stored[:, :, :3] + 255 * (1 - share)
    options = {"extrasamples": extra} if extra else {"extrasamples": ("unspecified",)}
    data = written(DEPTHS[depth](stored), photometric="rgb", planarconfig=planes, **options)
    try:
        found = seen(data)
    except BadImageError as error:
        assert "TIFF of 4 samples" in str(error)  # noqa: PT017
        return
    assert np.abs(found - wanted).max() <= 2


@pytest.mark.parametrize(
    ("channels", "depth", "planes"), list(product((3, 4), ("uint8", "uint16"), ("contig", "separate")))
)
def test_black_is_zero_with_three_or_four_bands_is_rgb(channels: int, depth: str, planes: str) -> None:
    """One band was kept, and shown as grey."""
    stored = picture(channels)
    data = written(DEPTHS[depth](stored), photometric="minisblack", planarconfig=planes)
    assert np.abs(seen(data).astype(int) - stored[:, :, :3]).max() <= 1


@pytest.mark.parametrize(("depth", "order"), list(product(("uint8", "uint16"), "<>")))
def test_white_is_zero_is_turned_over(depth: str, order: str) -> None:
    stored = picture(1)[:, :, 0]
    found = seen(written(DEPTHS[depth](stored), photometric="miniswhite", byteorder=order))
    assert np.abs(found[:, :, 0].astype(int) - (255 - stored)).max() <= 1
    assert (found[:, :, :1] == found).all()


@pytest.mark.parametrize("depth", [name for name in DEPTHS if name != "uint8"])
def test_grey_of_every_depth(depth: str) -> None:
    stored = picture(1)[:, :, 0]
    found = seen(written(DEPTHS[depth](stored), photometric="minisblack"))
    assert np.abs(found[:, :, 1].astype(int) - stored).max() <= 1


@pytest.mark.parametrize("orientation", sorted(TURNS))
@pytest.mark.parametrize(("depth", "planes"), [("uint16", "separate"), ("float32", "contig"), ("uint16", "contig")])
def test_every_orientation_is_applied_once(orientation: int, depth: str, planes: str) -> None:
    stored = picture(3)
    data = written(
        DEPTHS[depth](stored), photometric="rgb", planarconfig=planes, extratags=[(274, "H", 1, orientation, True)]
    )
    wanted = np.asarray(Image.fromarray(stored).transpose(TURNS[orientation]))
    found = seen(data)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("channels", "photometric", "depth"),
    [
        (13, "minisblack", "uint16"),
        (5, "minisblack", "uint8"),
        (4, "separated", "uint16"),
        (6, "minisblack", "float32"),
    ],
)
def test_what_is_no_colour_picture_is_refused_by_what_it_is(channels: int, photometric: str, depth: str) -> None:
    data = written(DEPTHS[depth](picture(channels)), photometric=photometric, planarconfig="contig")
    with pytest.raises(BadImageError, match=f"^a TIFF of {channels} samples of .* bits, photometric"):
        seen(data)


def compressed(data: bytes, compression: int) -> bytes:
    """Return an uncompressed TIFF that says it is compressed."""
    tag = struct.Struct("<HHIHH")
    changed = data.replace(tag.pack(259, 3, 1, 1, 0), tag.pack(259, 3, 1, compression, 0))
    assert read_tags(changed).compression == compression
    return changed


def test_a_kind_whose_compression_is_not_read_is_refused_by_what_it_is() -> None:
    data = written(DEPTHS["uint16"](picture(3)), photometric="rgb", planarconfig="separate")
    with pytest.raises(BadImageError, match=r"^a TIFF of 3 samples of 16 bits.*not read under this compression"):
        seen(compressed(data, 5))


@pytest.mark.parametrize("compression", [34712, 34887, 50002, 9999])
@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_compression_that_nobody_here_knows_is_refused_by_its_number(
    channels: int, depth: str, compression: int
) -> None:
    """They were called truncated or broken, once with Python's address of the file."""
    photometric = "rgb" if channels == 3 else "minisblack"
    data = written(DEPTHS[depth](picture(channels)).squeeze(), photometric=photometric)
    with pytest.raises(BadImageError, match=f"^a TIFF of .*compression {compression} is not read under this compr"):
        seen(compressed(data, compression))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_fractions_that_are_not_finite_are_not_called_broken(value: float) -> None:
    values = np.full((20, 30), 0.5, np.float32)
    values[3, 4] = value
    with pytest.raises(BadImageError, match=r"^holds values that are not finite"):
        seen(written(values))


def test_complex_numbers_are_refused_by_what_they_are() -> None:
    with pytest.raises(BadImageError, match=r"^a TIFF of 1 samples of 64 complex bits"):
        seen(written(np.ones((20, 30), np.complex64)))


def test_what_is_cut_off_is_still_called_truncated_or_broken() -> None:
    data = written(DEPTHS["uint16"](picture(3)), photometric="rgb", planarconfig="separate")
    with pytest.raises(BadImageError, match=r"^truncated or broken: "):
        seen(data[: len(data) // 2])


def test_another_reader_makes_another_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A remembered "not read under this compression" outlived the installing of what reads it."""
    before = decode.decoder_version()
    monkeypatch.setattr(decode, "version", lambda name: "9.9" if name == "imagecodecs" else version(name))
    assert decode.decoder_version() == f"{before}-imagecodecs9.9"
    monkeypatch.setattr(tifffile, "__version__", "1")
    assert "-tifffile1-" in decode.decoder_version()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("depth", ["uint16", "int32", "float32"])
def test_deep_grey_is_read_under_every_compression(depth: str, orientation: int) -> None:
    grey = picture(1)[:, :, 0]
    values = {"uint16": grey.astype(np.uint16) * 257, "int32": grey.astype(np.int32), "float32": np.float32(grey / 255)}
    file = io.BytesIO()
    Image.fromarray(values[depth]).save(file, "TIFF", compression="tiff_lzw", tiffinfo={274: orientation})
    wanted = np.rot90(grey, -1) if orientation == 6 else grey
    found = seen(file.getvalue())
    assert found.shape[:2] == wanted.shape
    assert np.abs(found[:, :, 0].astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        *product(["RGB", "L", "RGBA", "CMYK", "P", "1"], ["tiff_lzw", "packbits", "tiff_adobe_deflate", "raw"]),
        *product(["RGB", "L", "CMYK"], ["jpeg"]),
    ],
)
def test_plain_pictures_are_what_pillow_makes_of_them(mode: str, compression: str) -> None:
    image = Image.fromarray(picture(3)).convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF", compression=compression)
    reference = Image.open(io.BytesIO(file.getvalue()))
    if mode == "RGBA":
        reference = Image.alpha_composite(Image.new("RGBA", image.size, "white"), reference.convert("RGBA"))
    assert (seen(file.getvalue()) == np.asarray(reference.convert("RGB"))).all()


@pytest.mark.parametrize("options", [{}, {"compression": "deflate"}, {"tile": (16, 16)}])
def test_lab_in_planes_is_refused(options: dict[str, Any]) -> None:
    """Pillow takes the planes' signs for those of pixels: another picture."""
    values = np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="cielab", planarconfig="separate", **options)
    with pytest.raises(BadImageError, match="photometric 8, in planes"):
        decode_image(buffer.getvalue(), short_side=None, limits=LIMITS)


def palette_tiff(indices: Pixels, bits: int, colour_map: npt.NDArray[Any]) -> bytes:
    """Return an uncompressed TIFF of one strip, by hand: Pillow writes 8 bits and 256 colours, whatever it is told.

    Args:
        indices: [H, W].
        bits: 1, 2, 4 or 8.
        colour_map: [3, colours] as stored.
    """
    height, width = indices.shape
    of_bits = (indices[:, :, None] >> np.arange(bits)[::-1]) & 1
    strip = np.packbits(of_bits.reshape(height, -1), axis=1).tobytes()
    stored = colour_map.astype("<u2").tobytes()
    place = 8 + len(strip)
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 3)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, height), (279, 4, 1, len(strip))]
    entries += [(320, 3, colour_map.size, place)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", place + len(stored)) + strip + stored + directory


@pytest.mark.parametrize("scale", [1, 256, 257])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_colour_map_of_8_bits_is_read_as_that_of_16(bits: int, scale: int) -> None:
    """Old writers left the values at 8 bits; taken for 16 the picture is black."""
    generator = np.random.default_rng(bits)
    colours = generator.integers(1, 256, (3, 2**bits))
    indices = generator.integers(0, 2**bits, (20, 30)).astype(np.uint8)
    assert np.array_equal(seen(palette_tiff(indices, bits, colours * scale)), colours.T[indices])


@pytest.mark.parametrize("number", [1, 2, 15, 17])
def test_a_colour_map_with_other_than_a_colour_for_each_number_is_refused(number: int) -> None:
    indices = np.arange(16, dtype=np.uint8).reshape(4, 4)
    with pytest.raises(BadImageError, match=f"its colour map has {3 * number} values, not 48"):
        seen(palette_tiff(indices, 4, np.full((3, number), 200)))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_colour_map_of_8_bits_is_read_under_every_compression(compression: str) -> None:
    colours = np.random.default_rng(0).integers(1, 256, (256, 3))
    indices = np.arange(600).reshape(20, 30).astype(np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(colours.astype(np.uint8).ravel().tolist())
    file = io.BytesIO()
    image.save(file, "TIFF", compression=compression)
    whole = file.getvalue()
    assert np.array_equal(seen(whole), colours[indices])
    place, length = colour_map_of(whole)
    small = (np.frombuffer(whole[place : place + length], "<u2") >> 8).astype("<u2").tobytes()
    assert np.array_equal(seen(whole[:place] + small + whole[place + length :]), colours[indices])


def colour_map_of(data: bytes) -> tuple[int, int]:
    """Return where the colour map of a little-endian TIFF lies, and its length, bytes."""
    (start,) = struct.unpack_from("<I", data, 4)
    (number,) = struct.unpack_from("<H", data, start)
    for entry in range(number):
        tag, _, count, value = struct.unpack_from("<HHII", data, start + 2 + 12 * entry)
        if tag == 320:
            return value, 2 * count  # bytes
    raise AssertionError("no colour map")


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 4}])
def test_deflated_pixels_are_held_against_their_checksum(depth: str, options: dict[str, Any]) -> None:
    """libtiff gives what it inflates whatever the checksum says."""
    values = DEPTHS[depth](picture(3, 32, 48))
    whole = written(values, compression="zlib", photometric="rgb", **options)
    seen(whole)
    offset, length = read_tags(whole).pieces[-1]
    damaged = bytearray(whole)
    damaged[offset + length - 1] ^= 1  # of the checksum itself: the pixels are as they were
    with pytest.raises(BadImageError, match="checksum"):
        seen(bytes(damaged))


def test_a_deflated_piece_without_its_checksum_is_left_to_the_reader() -> None:
    """As some writers leave it; what is inflated is bounded by what the header declares."""
    whole = written(picture(3), compression="zlib", photometric="rgb", rowsperstrip=20)
    tags = read_tags(whole)
    (offset, length), *_ = tags.pieces
    check_deflated(whole[: offset + length - 4] + bytes(0), tags)
    bomb = zlib.compress(bytes(1 << 26), 9)
    small = dataclasses.replace(tags, pieces=((0, len(bomb)),))
    check_deflated(bomb[:-4] + b"none", small)  # its end is not reached
