from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from transferlib.data.decode import BadImageError, Decoded, Limits, decode_image

LIMITS = Limits(max_pixels=110_000_000, max_file_bytes=500_000_000)
Pixels = npt.NDArray[Any]


def picture(height: int = 60, width: int = 90) -> npt.NDArray[np.uint8]:
    """A smooth picture whose four corners and channels differ."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 80 * np.sin(x / 9 + k) * np.cos(y / 7 - k) + 40 * (x / width - y / height) for k in range(3)]
    return np.stack(waves, axis=2).clip(0, 255).astype(np.uint8)


def decode(data: bytes, short_side: int | None = None, limits: Limits = LIMITS) -> Decoded:
    return decode_image(data, short_side=short_side, limits=limits)


def reason(data: bytes, limits: Limits = LIMITS, short_side: int | None = None) -> str:
    with pytest.raises(BadImageError) as caught:
        decode(data, short_side, limits)
    return caught.value.reason


def difference(a: Pixels, b: Pixels) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def encoded_by_opencv(values: Pixels, suffix: str) -> bytes:
    done, data = cv2.imencode(suffix, values)
    assert done
    return data.tobytes()


def with_orientation_tag(tiff: bytes, orientation: int) -> bytes:
    """Move a little-endian TIFF's directory to its end, with an orientation in it."""
    start = struct.unpack("<I", tiff[4:8])[0]
    count = struct.unpack("<H", tiff[start : start + 2])[0]
    entries = [tiff[start + 2 + 12 * k : start + 14 + 12 * k] for k in range(count)]
    tag = struct.pack("<HHIHH", 274, 3, 1, orientation, 0)
    entries = sorted([*entries, tag], key=lambda entry: struct.unpack("<H", entry[:2])[0])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + directory


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, -1), (8, 1)])
def test_deep_tiff_is_turned_once(kind: Any, orientation: int, turns: int) -> None:
    stored = picture(20, 30)
    stored[0, 0] = 255
    deep = (stored[:, :, ::-1] * 257.0 if kind is np.uint16 else stored[:, :, ::-1] / 255).astype(kind)
    decoded = decode(with_orientation_tag(encoded_by_opencv(deep, ".tiff"), orientation))
    seen = np.rot90(stored, turns)
    assert (decoded.height, decoded.width) == seen.shape[:2]
    assert difference(decoded.pixels, seen) <= 1


def test_deep_png_is_turned_once() -> None:
    stored = picture(20, 30)
    stored[0, 0] = 255
    exif = Image.Exif()
    exif[274] = 6
    plain = encoded_by_opencv(stored[:, :, ::-1].astype(np.uint16) * 257, ".png")
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    decoded = decode(plain[:33] + chunk + plain[33:])
    assert (decoded.height, decoded.width) == (30, 20)
    assert difference(decoded.pixels, np.rot90(stored, -1)) <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_copy_looks_like_the_eight_bit_picture(suffix: str) -> None:
    colour = picture()
    colour[0, 0] = 255
    grey = colour[:, :, 0]
    deep_grey, deep = grey.astype(np.uint16) * 257, colour[:, :, ::-1].astype(np.uint16) * 257
    assert difference(decode(encoded_by_opencv(deep_grey, suffix)).pixels[:, :, 1], grey) <= 1
    assert difference(decode(encoded_by_opencv(deep, suffix)).pixels, colour) <= 1


def test_twelve_bits_in_a_sixteen_bit_file_keep_their_contrast() -> None:
    ramp = np.linspace(0, 4095, 256).astype(np.uint16)[None].repeat(8, axis=0)
    expected = np.arange(256, dtype=np.uint8)[None].repeat(8, axis=0)
    assert difference(decode(encoded_by_opencv(ramp, ".png")).pixels[:, :, 0], expected) <= 1
    colour = np.repeat(ramp[:, :, None], 3, axis=2)
    assert difference(decode(encoded_by_opencv(colour, ".png")).pixels[:, :, 0], expected) <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(0, 1, 256), np.arange(256)),
        (np.linspace(0, 255, 256), np.arange(256)),
        (np.linspace(-3, 7, 256), (np.linspace(-3, 7, 256) + 4) * 255 / 12),  # -4 to 8
        (np.linspace(0, 0.001953125, 256), np.arange(256)),
        (np.full(256, 1.0), np.full(256, 255)),
        (np.zeros(256), np.zeros(256)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_float_values_are_scaled_by_their_range(values: Pixels, expected: Pixels, channels: int) -> None:
    picture_of = values.astype(np.float32)[None].repeat(4, axis=0)
    data = encoded_by_opencv(picture_of if channels == 1 else np.repeat(picture_of[:, :, None], 3, 2), ".tiff")
    decoded = decode(data).pixels
    assert decoded.shape == (4, 256, 3)
    assert difference(decoded[0, :, 1], expected.astype(np.uint8)) <= 1


def test_values_that_are_not_finite_are_refused() -> None:
    values = np.ones((8, 8), np.float32)
    values[2, 3] = np.nan
    assert "not finite" in reason(encoded_by_opencv(values, ".tiff"))


def test_truncated_float_tiff_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded_by_opencv(np.random.default_rng(0).random((40, 40, 3)).astype(np.float32), ".tiff")
    assert reason(data[: len(data) // 2])
