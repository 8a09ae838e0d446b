"""A JPEG of which a part is missing is refused, whoever filled it up; a whole one never is, however flat."""

from __future__ import annotations

import functools
import io
from itertools import product
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from transferlib.data.decode import BadImageError, Limits, decode_image

LIMITS = Limits(10**7, 10**8)
END = b"\xff\xd9"
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 2},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 2},
    "full colour": {"subsampling": 0, "quality": 95},
    "grey": {},
    "four colours": {},
    "comment with an end marker": {"comment": b"\xff\xd9 \xff\xda"},
    "exif": {"exif": b"Exif\0\0" + bytes(500) + b"\xff\xd9\xff\xda"},
}


def seen(data: bytes, short_side: int | None = None) -> npt.NDArray[np.uint8]:
    return decode_image(data, short_side=short_side, limits=LIMITS).pixels


def refusal(data: bytes) -> str:
    with pytest.raises(BadImageError) as caught:
        seen(data)
    return caught.value.reason


def photo(seed: int = 0, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """Something like a photo: smooth, with texture in places."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size, 3)
    noise = generator.normal(0, 9, (size[1], size[0], 3)) * (np.arange(size[0]) % 200 > 60)[None, :, None]
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def jpeg(name: str, image: Image.Image | None = None) -> bytes:
    image = photo() if image is None else image
    file = io.BytesIO()
    image.convert({"grey": "L", "four colours": "CMYK"}.get(name, "RGB")).save(file, "JPEG", **KINDS[name])
    return file.getvalue()


def scan_start(data: bytes) -> int:
    return data.rfind(b"\xff\xda") + 20 if data.count(b"\xff\xda") < 3 else data.find(b"\xff\xda") + 20


@pytest.mark.parametrize("name", KINDS)
def test_a_jpeg_whose_tail_is_zeros_or_lost_is_incomplete(name: str) -> None:
    """20 of 612 photos that were cut at a tenth passed for whole, grey below."""
    data = jpeg(name)
    whole = seen(data)
    assert (seen(data + b"what a camera adds \xff\xd8") == whole).all()
    for share in (0.5, 0.8, 0.99):
        length = round(share * len(data))
        for tail in (bytes(len(data) - length), b"", b"\xff" * 40, bytes(40)):
            refusal(data[:length] + tail)


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"progressive with restarts"}))  # not seen right before one
def test_a_jpeg_that_was_cut_and_closed_is_incomplete(name: str) -> None:
    """It was used: the picture is grey from the cut on."""
    data = jpeg(name)
    start = scan_start(data)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        cut = data[: start + round(share * (len(data) - start))].rstrip(b"\xff") + END
        assert "incomplete, its data end before the picture does" in refusal(cut)


@pytest.mark.parametrize("name", KINDS)
def test_a_jpeg_with_a_hole_in_its_middle_is_incomplete(name: str) -> None:
    """It was used: noise, then shifted colours or grey. What a sparse copy or an unfinished download leaves."""
    data = jpeg(name)
    start = scan_start(data)
    length = (len(data) - start) // 4
    for share in (0.1, 0.3, 0.5):
        place = start + round(share * (len(data) - start))
        assert "incomplete" in refusal(data[:place] + bytes(length) + data[place + length :])


@functools.cache
def flat() -> dict[str, Image.Image]:
    generator = np.random.default_rng(0)
    product_shot = np.full((700, 900, 3), 255, np.uint8)
    product_shot[200:300, 300:500] = generator.integers(0, 256, (100, 200, 3))
    night = np.zeros((700, 900, 3), np.uint8)
    night[-30:, ::7] = 90
    stars = generator.poisson(0.02, (700, 900, 3)).astype(np.uint8) * 80
    return {
        "black": Image.new("RGB", (900, 700)),
        "middle grey": Image.new("RGB", (900, 700), (128, 128, 128)),
        "white": Image.new("RGB", (900, 700), "white"),
        "product": Image.fromarray(product_shot),
        "night": Image.fromarray(night),
        "stars": Image.fromarray(stars),
        "photo": photo(1),
        "1 x 1": Image.new("RGB", (1, 1), "red"),
    }


@pytest.mark.parametrize("what", flat())
def test_a_flat_picture_is_whole_and_its_pixels_are_pillows(what: str) -> None:
    """Optimised tables make long rows of zeros of it."""
    image = flat()[what]
    for name in KINDS:
        data = jpeg(name, image)
        wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        left = b"" if bytes(256) in data else b"what a camera leaves"
        for filling in (b"", b"\xff\xff\xff", bytes(3000), bytes(3000) + left):
            assert (seen(data[:-2] + filling + END) == wanted).all(), (name, len(filling))
        assert min(seen(data, short_side=64).shape[:2]) == 64, name


@pytest.mark.slow
@pytest.mark.parametrize(("is_optimised", "is_progressive", "interval"), list(product((0, 1), (0, 1), (0, 3))))
def test_what_another_encoder_writes_is_whole(is_optimised: int, is_progressive: int, interval: int) -> None:
    options = [cv2.IMWRITE_JPEG_OPTIMIZE, is_optimised, cv2.IMWRITE_JPEG_PROGRESSIVE, is_progressive]
    options += [cv2.IMWRITE_JPEG_RST_INTERVAL, interval]
    for image in flat().values():
        data = cv2.imencode(".jpg", np.asarray(image), options)[1].tobytes()
        assert (seen(data) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


def test_the_first_of_several_pictures_is_judged() -> None:
    file = io.BytesIO()
    photo().save(file, "MPO", save_all=True, append_images=[photo(1)])
    data = file.getvalue()
    assert (seen(data) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()
    assert (seen(data[:-9000]) == seen(data)).all()
    place = data.find(b"\xff\xda") + 3000
    assert "incomplete" in refusal(data[:place] + bytes(2000) + data[place + 2000 :])
