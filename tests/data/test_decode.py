from __future__ import annotations

import contextlib
import io
import pickle
import struct
import time
import warnings
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torchvision.transforms import functional as torchvision_functional

from transferlib.data.decode import BadImageError, Decoded, Limits, decode_image
from transferlib.spec import DataSpec

LIMITS = Limits(max_pixels=110_000_000, max_file_bytes=500_000_000)
Pixels = npt.NDArray[Any]


def picture(height: int = 60, width: int = 90) -> npt.NDArray[np.uint8]:
    """A smooth picture whose four corners and channels differ."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 80 * np.sin(x / 9 + k) * np.cos(y / 7 - k) + 40 * (x / width - y / height) for k in range(3)]
    return np.stack(waves, axis=2).clip(0, 255).astype(np.uint8)


def encoded(image: Image.Image | Pixels, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, image_format, **options)
    return buffer.getvalue()


def decode(data: bytes, short_side: int | None = None, limits: Limits = LIMITS) -> Decoded:
    return decode_image(data, short_side=short_side, limits=limits)


def reason(data: bytes, limits: Limits = LIMITS, short_side: int | None = None) -> str:
    with pytest.raises(BadImageError) as caught:
        decode(data, short_side, limits)
    return caught.value.reason


def difference(a: Pixels, b: Pixels) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def psnr(a: Pixels, b: Pixels) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b.astype(float)) ** 2), 1e-9)))


def png_of_zeros(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(1)
    row = bytes(1 + 3 * width)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_come_back_as_they_were(image_format: str) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {}
    decoded = decode(encoded(picture(), image_format, **options))
    assert np.array_equal(decoded.pixels, picture())
    assert (decoded.width, decoded.height) == (90, 60)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous


def test_big_tiff_and_two_lens_jpeg_come_back() -> None:
    assert np.array_equal(decode(encoded(picture(), "TIFF", big_tiff=True)).pixels, picture())
    two = encoded(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (90, 60))], quality=95)
    assert psnr(decode(two).pixels, picture()) > 30
    assert decode(two, 15).pixels.shape == (15, 22, 3)


@pytest.mark.parametrize(("image_format", "least"), [("JPEG", 30.0), ("GIF", 25.0)])
def test_lossy_formats_come_back_nearly(image_format: str, least: float) -> None:
    assert psnr(decode(encoded(picture(), image_format)).pixels, picture()) > least


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame_of_several_counts(image_format: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:])
    assert difference(decode(data).pixels, np.full((10, 20, 3), (255, 0, 0), np.uint8)) <= 3


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA", "YCbCr"])
def test_every_colour_mode_becomes_rgb(mode: str) -> None:
    image_format = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    grey = Image.new("RGB", (16, 8), (255, 255, 255)).convert(mode)
    assert difference(decode(encoded(grey, image_format)).pixels, np.full((8, 16, 3), 255, np.uint8)) <= 3


def test_cmyk_jpeg_keeps_its_colours() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert difference(decode(encoded(red, "JPEG")).pixels, np.full((16, 16, 3), (255, 0, 0), np.uint8)) <= 6


def test_alpha_is_laid_on_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, :, 3] = [0, 128, 255, 0]
    expected = np.repeat(np.array([255, 127, 0, 255], np.uint8)[None, :, None], 3, axis=2).repeat(4, axis=0)
    assert difference(decode(encoded(rgba, "PNG")).pixels, expected) <= 1


def test_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert decode(encoded(image, "PNG", transparency=1)).pixels.min() == 255
    assert decode(encoded(image, "GIF", transparency=1)).pixels.min() == 255
    assert tuple(decode(encoded(image, "PNG")).pixels[0, 0]) == (10, 20, 30)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(image_format: str, orientation: int) -> None:
    seen = picture(64, 96)
    undo = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.transpose(1, 0, 2),
        6: seen.transpose(1, 0, 2)[::-1],
        7: seen[::-1, ::-1].transpose(1, 0, 2),
        8: seen.transpose(1, 0, 2)[:, ::-1],
    }
    stored = np.ascontiguousarray(undo[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    options: dict[str, Any] = {"lossless": True} if image_format == "WEBP" else {}
    if image_format == "JPEG":
        options = {"quality": 95, "subsampling": 0}
    data = encoded(stored, image_format, exif=exif, **options)
    decoded = decode(data)
    assert (decoded.width, decoded.height) == (96, 64)
    assert psnr(decoded.pixels, seen) > 35
    small = decode(data, 32)
    assert small.pixels.shape == (32, 48, 3)
    assert psnr(small.pixels, decode(encoded(seen, "PNG"), 32).pixels) > 35


def test_short_side_and_long_side_follow_torchvision() -> None:
    for height, width in ((60, 90), (90, 61), (20, 20), (33, 200)):
        image = Image.fromarray(picture(height, width))
        expected = np.asarray(torchvision_functional.resize(image, 48))
        assert np.array_equal(decode(encoded(image, "PNG"), 48).pixels, expected)


def test_large_jpeg_decoded_at_reduced_scale_is_the_full_one_nearly() -> None:
    image = Image.fromarray(picture(613, 917))
    data = encoded(image, "JPEG", quality=92)
    full = np.asarray(torchvision_functional.resize(Image.open(io.BytesIO(data)), 64))
    assert psnr(decode(data, 64).pixels, full) > 40


def test_content_decides_not_the_suffix() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n"
    assert "no image of a known format" in reason(eps)
    for stranger in (b"hello", b"%PDF-1.7", encoded(picture(), "PPM"), encoded(picture(), "ICO"), b"\0" * 1000):
        assert "no image of a known format" in reason(stranger)


def test_bomb_is_refused_from_its_header_at_once() -> None:
    default = DataSpec(path="photos")
    limits = Limits(default.max_pixels, default.max_file_bytes)
    data = png_of_zeros(12_000, 10_000)
    assert len(data) < 2_000_000
    started = time.perf_counter()
    with pytest.raises(BadImageError) as caught:
        decode(data, 256, limits)
    assert time.perf_counter() - started < 0.2
    assert caught.value.reason == "declares 12000 x 10000 pixels, over the limit of 110,000,000"
    assert (caught.value.width, caught.value.height) == (12_000, 10_000)


def test_limit_above_pillows_own_is_honoured_and_pillows_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(encoded(picture(), "PNG")).width == 90
    assert Image.MAX_IMAGE_PIXELS == 100


def test_strip_that_would_grow_into_a_bomb_is_refused() -> None:
    assert "too elongated" in reason(encoded(np.zeros((1, 2000, 3), np.uint8), "PNG"), short_side=256)


def test_file_over_the_size_limit_is_refused() -> None:
    assert "over the limit" in reason(encoded(picture(), "PNG"), Limits(10**6, 100))


def test_empty_file_is_refused() -> None:
    assert reason(b"") == "empty file"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_file_is_refused(image_format: str, kept: float) -> None:
    data = encoded(np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8), image_format)
    assert reason(data[: int(len(data) * kept)], short_side=32)


def test_png_and_jpeg_without_their_last_bytes_are_refused() -> None:
    for image_format in ("PNG", "JPEG"):
        assert "truncated" in reason(encoded(picture(), image_format)[:-8])


def test_damaged_bytes_end_as_a_reason_or_a_picture_never_as_another_error() -> None:
    draws = np.random.default_rng(3)
    for image_format in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"):
        data = np.frombuffer(encoded(picture(40, 50), image_format), np.uint8)
        for _ in range(40):
            broken = data.copy()
            broken[draws.integers(0, min(len(broken), 300), 6)] = draws.integers(0, 256, 6)
            with contextlib.suppress(BadImageError):
                assert decode(broken.tobytes(), 32).pixels.ndim == 3


def test_broken_exif_costs_no_picture() -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert decode(data).pixels.shape == (60, 90, 3)


def test_no_warning_leaks_and_filters_are_restored() -> None:
    image = Image.new("P", (4, 4))
    image.putpalette([1, 2, 3] * 2)
    noisy = encoded(image, "PNG", transparency=b"\x00\x80")
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        decode(noisy)
        decode(encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff"))
    assert seen == []
    assert warnings.filters == before


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadImageError("why", 3, 4)))
    assert (error.reason, error.width, error.height, str(error)) == ("why", 3, 4, "why")
