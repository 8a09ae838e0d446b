"""AVIF, JPEG 2000 and HEIC: what phones and the web write is read, or the row names what is missing."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from transferlib.data import decode
from transferlib.data.decode import BadImageError, Limits, decode_image

LIMITS = Limits(10**6, 10**6)
# Four flat quarters (red, green; blue, yellow), 64 x 48, by libheif; the second with EXIF orientation 6.
PLAIN = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAAMgAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    "AAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5j"
    "bHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBp"
    "eGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAANBtZGF0AAAAxCgBrwngITip//M8b/78nZe0xyeVp79Y//y3r7y4"
    "H/36G3R+ja83/xqjv0Aa/4Q7Ewsn5R/+qrL48wWfiZ7AywHO/G8TIQVXMLeIvrsLjV+OgAgDBTWn5cYt5bBsQBe5bRPncw21ikfJ"
    "cpArZcDiMrYxvrn3fd5TqplkMFxyCwUN/K6shcv2VB5/6Q3mn3J41Be5PTQ1gLWXzn8za06Qfjxjvc/XTkk2YivvS+GUkjh49trm"
    "c9e/q0RUCGD/xq3DPFZcC3I="
)
TURNED = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ADRpbG9jAAAAAERAAAIAAQAAAAAB7AABAAAAAAAAAMgAAgAAAAACtAABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAA"
    "AAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAA"
    "kAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq"
    "5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xh"
    "cAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEA"
    "AQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAPRtZGF0AAAAxCgBrwngITip//M8b/78nZe0xyeVp79Y//y3r7y4"
    "H/36G3R+ja83/xqjv0Aa/4Q7Ewsn5R/+qrL48wWfiZ7AywHO/G8TIQVXMLeIvrsLjV+OgAgDBTWn5cYt5bBsQBe5bRPncw21ikfJ"
    "cpArZcDiMrYxvrn3fd5TqplkMFxyCwUN/K6shcv2VB5/6Q3mn3J41Be5PTQ1gLWXzn8za06Qfjxjvc/XTkk2YivvS+GUkjh49trm"
    "c9e/q0RUCGD/xq3DPFZcC3IAAAAGRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA="
)
RED, GREEN, BLUE, YELLOW = (200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 30)


def seen(data: bytes, short_side: int | None = None) -> np.ndarray:
    return decode_image(data, short_side=short_side, limits=LIMITS).pixels


def picture() -> Image.Image:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32], pixels[:24, 32:], pixels[24:, :32], pixels[24:, 32:] = RED, GREEN, BLUE, YELLOW
    return Image.fromarray(pixels)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    height, width = pixels.shape[:2]
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    known = (RED, GREEN, BLUE, YELLOW)
    found = [pixels[place].astype(int) for place in places]
    return [min(known, key=lambda colour: np.abs(here - colour).sum()) for here in found]


def test_heic_is_read_and_turned_once() -> None:
    pytest.importorskip("pi_heif")
    assert seen(PLAIN).shape == (48, 64, 3)
    assert corners(seen(PLAIN)) == [RED, GREEN, BLUE, YELLOW]
    assert seen(TURNED).shape == (64, 48, 3)
    assert corners(seen(TURNED)) == [BLUE, RED, YELLOW, GREEN]
    assert seen(TURNED, short_side=24).shape == (32, 24, 3)


@pytest.mark.parametrize("data", [b"\xff\xd8\xff but no more", b"nothing at all", b"\0\0\0\x18ftypxxxx"])
def test_what_is_none_of_them_is_said_to_be_of_no_known_format(data: bytes) -> None:
    with pytest.raises(BadImageError, match=r"no image of a known format \(JPEG, PNG, .*AVIF, JPEG2000"):
        seen(data)


def test_heic_without_its_extra_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "HAS_HEIF", False)
    with pytest.raises(BadImageError, match=r"HEIC, which needs the extra heic: pip install 'transferlib\[heic\]'"):
        seen(PLAIN)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_read_and_turned_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    picture().save(file, "AVIF", quality=95, exif=exif.tobytes())
    found = seen(file.getvalue())
    reference = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))).convert("RGB"))
    assert (found == reference).all()
    turned = ImageOps.exif_transpose(_with(picture(), exif))
    assert corners(found) == corners(np.asarray(turned))


@pytest.mark.parametrize("has_heif", [True, False])
@pytest.mark.parametrize("brand", [b"mif1", b"msf1"])
def test_an_avif_that_begins_with_a_brand_of_any_coding_is_read(
    monkeypatch: pytest.MonkeyPatch, brand: bytes, has_heif: bool
) -> None:
    """It was given to HEIF's decoder, which was not built for it."""
    monkeypatch.setattr(decode, "HAS_HEIF", has_heif and decode.HAS_HEIF)
    file = io.BytesIO()
    picture().save(file, "AVIF", quality=95)
    data = file.getvalue()
    assert b"avif" in data[16:32]
    assert (seen(data[:8] + brand + data[12:]) == seen(data)).all()


def test_a_heif_that_begins_with_a_brand_of_any_coding_is_read() -> None:
    pytest.importorskip("pi_heif")
    assert PLAIN[16:28] == b"mif1heicmiaf"
    assert (seen(PLAIN[:8] + b"mif1" + PLAIN[12:]) == seen(PLAIN)).all()


def _with(image: Image.Image, exif: Image.Exif) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    opened = Image.open(io.BytesIO(file.getvalue()))
    opened.load()  # only then it knows its EXIF
    return opened


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
@pytest.mark.parametrize("options", [{}, {"no_jp2": True}])
def test_jpeg_2000_is_read(mode: str, options: dict[str, bool]) -> None:
    grey = np.asarray(picture().convert("L"))
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else picture().convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG2000", **options)
    wanted = np.repeat(grey[:, :, None], 3, axis=2) if mode in ("L", "I;16") else np.asarray(picture())
    assert np.abs(seen(file.getvalue()).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_what_is_cut_off_is_refused(kind: str) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    for share in (0.02, 0.3):
        with pytest.raises(BadImageError):
            seen(file.getvalue()[: round(share * len(file.getvalue()))])
