"""From a file's bytes to 8-bit RGB: by content not suffix, size checked before decoding, orientation applied.

The decoder is Pillow, for every format. Measured on 400-pixel photographs, decode and antialiased resize to 256 (ms an
image, one core): Pillow 1.3, OpenCV 1.1, torchvision 0.8. OpenCV shows a truncated JPEG as grey without a word and its
resize is not torchvision's; torchvision's needs torch in every decoding process. Pillow refuses what is truncated, and
its bilinear resize is bit for bit what torchvision's transforms do to a Pillow image, which is what published weights
were measured with. Since pixels are cached, the difference is paid once.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import cv2
import numpy as np
import numpy.typing as npt
import PIL
import tifffile
from PIL import Image, ImageFile

from transferlib.data.containers import (
    PNG_START,
    is_heif,
    jpeg2000_bits,
    png_grey_step,
    png_picture,
    png_problem,
    png_significant_bits,
)
from transferlib.data.depth import Samples, UnsupportedImageError, has_deep_colour, read_deep
from transferlib.data.depth_scale import DepthFacts, DepthScale
from transferlib.data.jpeg import load_jpeg
from transferlib.data.quiet import quiet_pillow
from transferlib.data.tiff import TURNS, check_deflated, read_tags, read_tiff

HAS_HEIF = find_spec("pi_heif") is not None
"""Whether the extra `heic` is installed: libheif's decoder for what phones write."""
_PILLOWS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000")
FORMATS = (*_PILLOWS, *(("HEIF",) if HAS_HEIF else ()))


def decoder_version() -> str:
    """Return a name that changes whenever the same bytes could give other pixels, or be read and not refused."""
    readers = {"pillow": PIL.__version__, "opencv": cv2.__version__, "tifffile": tifffile.__version__}
    more = {"heif": _version("pi-heif"), "imagecodecs": _version("imagecodecs")}  # may be installed beside them
    return "-".join(["6", *(f"{name}{number}" for name, number in (readers | more).items() if number)])


def _version(name: str) -> str:
    """Return the version of an installed distribution; empty where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


DECODER_VERSION = decoder_version()
"""Part of the cache's key."""

MAX_ASPECT_RATIO = 100
"""A longer strip is refused: enlarged to the short side it would be a bomb of its own."""

DRAFT_MARGIN = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 (exactly, in the frequency domain) while its short side stays this much above
the wanted one. At 2 the result is 40 dB or more from the full decode and a 12-megapixel photo takes 14 ms, not 104."""

_ORIENTATION_TAG = 274
_SWAPS_SIDES = frozenset({5, 6, 7, 8})
_PNG_END = b"IEND\xaeB`\x82"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Limits:
    """Bound what one file may cost."""

    max_pixels: int
    """Width x height that the header may declare."""
    max_file_bytes: int
    """Size of the file, bytes."""


class BadImageError(Exception):
    """Report bytes that do not serve as an image.

    Args:
        reason: One line for the manifest.
        width: As the header declares, pixels; 0 where it could not be read.
        height: As width.
    """

    def __init__(self, reason: str, width: int = 0, height: int = 0) -> None:
        super().__init__(reason, width, height)
        self.reason = reason
        self.width = width
        self.height = height

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, eq=False)
class Decoded:
    """Hold a decoded image."""

    pixels: npt.NDArray[np.uint8]
    """[H, W, 3] RGB, contiguous."""
    width: int
    """Of the source as it is to be seen (after EXIF orientation), pixels."""
    height: int
    """As width."""
    mode: str = ""
    """Pillow's name of how the file holds colours; empty where Pillow does not read it."""
    orientation: int = 1
    """EXIF's, 1 to 8, which `pixels` are turned by."""
    depth: DepthFacts | None = None
    """What a deep picture says of its scale; None: it has 8 bits a sample."""


def decode_image(data: bytes, *, short_side: int | None, limits: Limits, scale: DepthScale | None = None) -> Decoded:
    """Decode a file's bytes to RGB and resize to a short side, antialiased (bilinear with support scaled).

    Grey and palette become RGB, alpha is laid on white, CMYK is converted, deep values are scaled by the data set's
    range (see `depth_scale`); of an animation the first frame counts. Large JPEGs are decoded at a reduced scale first
    (see DRAFT_MARGIN).

    Args:
        data: A whole file.
        short_side: Short side of the result, pixels, reached by shrinking or enlarging; the long side is
            int(short_side * long / short), as torchvision's Resize has it. None: the source's size.
        limits: What is refused before decoding.
        scale: Of the data set; None: a deep picture is scaled as if it were one of its own.

    Raises:
        BadImageError: Empty, of no known format, broken, truncated, too large or too elongated.
    """
    if not data:
        raise BadImageError("empty file")
    if len(data) > limits.max_file_bytes:
        raise BadImageError(f"file of {len(data):,} bytes is over the limit of {limits.max_file_bytes:,}")
    if data.startswith(PNG_START):
        data = png_picture(data)
    with quiet_pillow():
        image = _open(data)
        mode = image.mode if image is not None else ""
        stored = _stored_size(image, data)
        check_size(*stored, limits)
        if data.startswith(PNG_START) and (problem := png_problem(data)):
            raise BadImageError(problem, *stored)
        try:
            pixels, orientation, depth = _pixels(image, data, stored, short_side, scale)
        # The content is untrusted and Pillow's decoders raise a dozen types on it: whatever one bad file raises must
        # end as this file's reason and never cost its neighbours.
        except Exception as error:
            raise BadImageError(_reason(error), *stored) from None
    width, height = stored[::-1] if orientation in _SWAPS_SIDES else stored
    return Decoded(pixels, width, height, mode, orientation, depth)


def check_size(width: int, height: int, limits: Limits) -> None:
    """Refuse a declared size that would cost too much to decode.

    Args:
        width: Pixels.
        height: Pixels.
        limits: The bound on width x height.

    Raises:
        BadImageError: Nothing, too many pixels, or too elongated.
    """
    if width < 1 or height < 1:
        raise BadImageError(f"declares a size of {width} x {height}", width, height)
    if width * height > limits.max_pixels:
        raise BadImageError(
            f"declares {width} x {height} pixels, over the limit of {limits.max_pixels:,}", width, height
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise BadImageError(f"too elongated: {width} x {height} pixels", width, height)


def resized_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return (height, width) after a resize to a short side.

    Source: torchvision.transforms.functional._compute_resized_output_size.
    """
    if height <= width:
        return short_side, int(short_side * width / height)
    return int(short_side * height / width), short_side


def _open(data: bytes) -> ImageFile.ImageFile | None:
    """Read the header; None for a TIFF of a kind that Pillow does not know (several float channels, float64)."""
    needs_heif = is_heif(data)
    if needs_heif and not HAS_HEIF:
        raise BadImageError("HEIC, which needs the extra heic: pip install 'transferlib[heic]'")
    if needs_heif:
        _register_heif()
    try:
        return Image.open(io.BytesIO(data), formats=("HEIF",) if needs_heif else _PILLOWS)
    except PIL.UnidentifiedImageError:
        if data.startswith(TIFF_STARTS):
            return None
        raise BadImageError(f"no image of a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # as in decode_image: the header is untrusted too
        raise BadImageError(_reason(error)) from None


@cache
def _register_heif() -> None:
    import pi_heif

    pi_heif.register_heif_opener()


def _stored_size(image: ImageFile.ImageFile | None, data: bytes) -> tuple[int, int]:
    """Return (width, height) as the header has it, before any turning."""
    if image is not None and image.format != "TIFF":
        return image.size
    try:  # Pillow reports a TIFF's size as turned already
        tags = read_tags(data)
    except Exception as error:
        raise BadImageError(_reason(error)) from None
    return tags.width, tags.height


def _pixels(
    image: ImageFile.ImageFile | None,
    data: bytes,
    stored: tuple[int, int],
    short_side: int | None,
    scale: DepthScale | None,
) -> tuple[npt.NDArray[np.uint8], int, DepthFacts | None]:
    """Decode, make RGB, resize and turn.

    Returns:
        The pixels [H, W, 3] as seen, the orientation that led there, and what a deep picture says of its scale.
    """
    box = None
    if image is not None and short_side is not None and image.format in ("JPEG", "MPO"):
        drafted = image.draft(image.mode, (short_side * DRAFT_MARGIN, short_side * DRAFT_MARGIN))
        box = drafted[1] if drafted else None
    is_turned = image is None or image.format == "TIFF"  # Pillow turns a TIFF itself, and only that
    tags = read_tags(data) if is_turned else None
    if tags is not None:
        check_deflated(data, tags)
    found: Image.Image | Samples
    if tags is not None and (image is None or not tags.is_plain):
        found, is_turned = read_tiff(data, tags)
    else:
        assert image is not None
        found = _decoded(image, data)
    rgb = Image.fromarray(found.render(scale)) if isinstance(found, Samples) else found
    orientation = _orientation(image, data)
    if orientation in TURNS and tags is not None and not is_turned:
        rgb, is_turned = rgb.transpose(TURNS[orientation]), True
    if short_side is not None:
        width, height = stored[::-1] if is_turned and orientation in _SWAPS_SIDES else stored
        height, width = resized_shape(height, width, short_side)
        if (width, height) != rgb.size:
            rgb = rgb.resize((width, height), Image.Resampling.BILINEAR, box=box)
    if orientation in TURNS and not is_turned:
        rgb = rgb.transpose(TURNS[orientation])
    depth = found.facts if isinstance(found, Samples) and found.is_deep else None
    return np.ascontiguousarray(np.asarray(rgb)), orientation, depth


def _decoded(image: ImageFile.ImageFile, data: bytes) -> Image.Image | Samples:
    """Return a picture as RGB, or the numbers of a deep one."""
    if image.format == "PNG" and _PNG_END not in data:
        raise OSError("image file is truncated (no end chunk)")
    if image.format in ("JPEG", "MPO"):
        load_jpeg(image, data)
    is_deep = has_deep_colour(image)
    image.load()
    if is_deep:
        return read_deep(data, png_significant_bits(data))
    if image.mode.startswith(("I", "F")):
        return _deep_grey(image, data)
    if image.format == "PNG" and image.mode == "L" and isinstance(clear := image.info.get("transparency"), int):
        image.info["transparency"] = clear * png_grey_step(data)  # Pillow compares what is stored with what it widened
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_grey(image: ImageFile.ImageFile, data: bytes) -> Samples:
    values = np.asarray(image)[:, :, None]
    clear = image.info.get("transparency")
    alpha = (values != clear).astype(np.float64) if isinstance(clear, int) else None
    if image.format == "JPEG2000":
        bits = jpeg2000_bits(data)
        return Samples(values >> (16 - bits), bits, alpha, declares_bits=True)  # Pillow widens them to 16
    return Samples(values, 16, alpha, significant=png_significant_bits(data) if image.format == "PNG" else 0)


def _orientation(image: Image.Image | None, data: bytes) -> int:
    """Return EXIF's orientation of a loaded image, 1 to 8; 1 where there is none or it cannot be read.

    Only after loading: for a PNG, Pillow would decode it to look for EXIF.
    """
    try:
        if image is None or image.format == "TIFF":
            value: object = read_tags(data).orientation
        else:
            value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # broken EXIF says nothing about the picture
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, UnsupportedImageError):
        return text
    return f"truncated or broken: {text}" if text else f"broken: {type(error).__name__}"
