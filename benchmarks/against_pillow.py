"""List where our decoder and Pillow's own way disagree on a folder of image files.

    python benchmarks/against_pillow.py FOLDER

FOLDER may be any: the test images that Pillow, PngSuite or image-rs ship are worth a look. Pillow's own way is
`ImageOps.exif_transpose(Image.open(path)).convert("RGB")` on white. Neither is right by itself: of a TIFF with planes
or extra bands, and of deep values, it is Pillow that shows another picture.
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from transferlib.data.decode import BadImageError, Limits, decode_image

LIMITS = Limits(max_pixels=200_000_000, max_file_bytes=500_000_000)
ALIKE = 2
"""Largest difference of a grey level that rounding explains."""

Pixels = npt.NDArray[np.uint8]


def ours(data: bytes) -> Pixels | str:
    """Return what we see, or why we refuse it."""
    try:
        return decode_image(data, short_side=None, limits=LIMITS).pixels
    except BadImageError as error:
        return str(error)


def pillows(data: bytes) -> Pixels | str:
    """Return what Pillow shows, or its error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = Image.open(io.BytesIO(data))
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # of dozens of types
        return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"


def compare(data: bytes) -> tuple[str, str]:
    """Return how the two stand to each other in a word, and more of it.

    Args:
        data: A whole file.
    """
    one, other = ours(data), pillows(data)
    if isinstance(one, str) and isinstance(other, str):
        return "both refuse", ""
    if isinstance(one, str):
        return "only Pillow reads", one
    if isinstance(other, str):
        return "only we read", other
    if one.shape != other.shape:
        return "other shape", f"{one.shape[:2]} and {other.shape[:2]}"
    difference = np.abs(one.astype(np.int16) - other)
    if difference.max() <= ALIKE:
        return "alike", ""
    return "other pixels", f"up to {difference.max()}, {difference.mean():.1f} on average"


def main() -> None:
    """Compare every file below a folder, and print those that differ and the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    counts: Counter[str] = Counter()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        how, more = compare(path.read_bytes())
        counts[how] += 1
        if how not in ("alike", "both refuse"):
            print(f"{how:18} {path.relative_to(folder)}: {more}")
    print(", ".join(f"{number} {how}" for how, number in counts.most_common()))


if __name__ == "__main__":
    main()
