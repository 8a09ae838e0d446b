"""What share of planted copies the search for near duplicates finds, how many pairs it claims wrongly, what it costs.

    python benchmarks/near_duplicates.py FOLDER [--at-most N] [--pairs SHEET.png]
    python benchmarks/near_duplicates.py --crowd 300 1000

FOLDER holds photos, at any depth. Of each photo a copy of each kind is made and looked for among all photos and the
copies of that kind. A pair of two photos of the folder may be a true one, which only eyes can say: --pairs draws them
side by side. Photos on one background are the middles of the photos, pasted on it: none shows the same as another.
--crowd measures the search alone, where every picture looks like every other: noise in the middle of one background.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measuring import machine_line, table
from PIL import Image, ImageDraw, ImageOps

from transferlib.data.cache import DecodedCache
from transferlib.data.decode import BadImageError, Limits, decode_image
from transferlib.data.duplicates import find_near_duplicates
from transferlib.data.likeness import show_the_same
from transferlib.data.lookalikes import find_lookalikes
from transferlib.data.looks import SIDE, Look, look_at

LIMITS = Limits(max_pixels=200_000_000, max_file_bytes=500_000_000)
SHORT_SIDE = 256
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
SHEET_SIDE = 200

Photo = Image.Image
Draws = np.random.Generator


class Picture(NamedTuple):
    """Hold a photo of the folder."""

    name: str
    photo: Photo
    look: Look


def cropped(photo: Photo, left: float, top: float, share: float = 0.9) -> Photo:
    """Return a share of each side."""
    width, height = photo.size
    box = (left * width, top * height, (left + share) * width, (top + share) * height)
    return photo.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))


def cropped_anywhere(photo: Photo, draws: Draws) -> Photo:
    """Return nine tenths of each side, from anywhere."""
    left, top = draws.uniform(0, 0.1, 2).tolist()
    return cropped(photo, left, top)


def next_frame(photo: Photo, draws: Draws) -> Photo:
    """Return a frame of a burst: shifted, turned, other light, other noise, and a part that moved."""
    width, height = photo.size
    shift = draws.uniform(-0.025, 0.025, 2) * (width, height)
    moved = photo.rotate(draws.uniform(-1.5, 1.5), Image.Resampling.BICUBIC, translate=(int(shift[0]), int(shift[1])))
    inner = cropped(moved, 0.05, 0.05, 0.9)  # what the turn left empty lies outside
    width, height = inner.size
    left, top = draws.uniform(0.1, 0.6, 2).tolist()
    part = cropped(inner, left, top, 0.15)
    inner.paste(part, (int(draws.uniform(0.1, 0.7) * width), int(draws.uniform(0.1, 0.7) * height)))
    values = np.asarray(inner).astype(np.float64) * draws.uniform(0.9, 1.1) + draws.uniform(-8, 8)
    values += draws.normal(0, 4, values.shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


Turn = Image.Transpose
KINDS: dict[str, tuple[Callable[[Photo, Draws], Photo], int]] = {
    "encoded anew, quality 40": (lambda photo, _: photo, 40),
    "half as large": (lambda photo, _: photo.resize((photo.width // 2, photo.height // 2)), 85),
    "squeezed to 224 x 224": (lambda photo, _: photo.resize((224, 224)), 85),
    "a tenth cropped from one corner": (lambda photo, _: cropped(photo, 0.0, 0.0), 85),
    "a tenth cropped all round": (lambda photo, _: cropped(photo, 0.05, 0.05), 85),
    "a tenth cropped anyhow": (cropped_anywhere, 85),
    "mirrored": (lambda photo, _: photo.transpose(Turn.FLIP_LEFT_RIGHT), 85),
    "turned by 90": (lambda photo, _: photo.transpose(Turn.ROTATE_90), 85),
    "turned by 180": (lambda photo, _: photo.transpose(Turn.ROTATE_180), 85),
    "turned by 270": (lambda photo, _: photo.transpose(Turn.ROTATE_270), 85),
    "cropped anyhow and turned": (lambda photo, draws: cropped_anywhere(photo, draws).transpose(Turn.ROTATE_90), 85),
    "grey": (lambda photo, _: photo.convert("L"), 85),
    "next frame of a burst": (next_frame, 85),
}


def on_white(photo: Photo) -> Photo:
    """Return the middle of a photo as a round thing on white."""
    side = 320
    canvas, mask = Image.new("RGB", (side, side), "white"), Image.new("L", (side // 2, side // 2), 0)
    ImageDraw.Draw(mask).ellipse((0, 0, side // 2 - 1, side // 2 - 1), fill=255)
    canvas.paste(ImageOps.fit(photo, mask.size), (side // 4, side // 4), mask)
    return canvas


def in_frame(photo: Photo) -> Photo:
    """Return a photo in a broad black frame."""
    return ImageOps.expand(ImageOps.fit(photo, (240, 240)), 40, "black")


def on_falling_grey(photo: Photo) -> Photo:
    """Return the middle of a photo as a small thing on a background of which one side is darker."""
    canvas = Image.fromarray(np.tile(np.linspace(90, 200, 320).astype(np.uint8), (320, 1))).convert("RGB")
    canvas.paste(ImageOps.fit(photo, (110, 110)), (105, 120))
    return canvas


def as_shape(photo: Photo) -> Photo:
    """Return what a photo's middle is dark in, as a black shape on white: a scan."""
    grey = np.asarray(ImageOps.fit(photo.convert("L"), (160, 160)))
    canvas = Image.new("L", (320, 320), 255)
    canvas.paste(Image.fromarray(np.where(grey < np.median(grey), 0, 255).astype(np.uint8)), (80, 80))
    return canvas.convert("RGB")


BACKGROUNDS: dict[str, Callable[[Photo], Photo]] = {
    "round things on white": on_white,
    "small things on falling grey": on_falling_grey,
    "photos in a black frame": in_frame,
    "black shapes on white": as_shape,
}


def look_of(photo: Photo, quality: int) -> Look:
    """Return how a photo looks after a JPEG of it was read as a run reads it."""
    data = io.BytesIO()
    photo.save(data, "JPEG", quality=quality)
    return look_at(decode_image(data.getvalue(), short_side=SHORT_SIDE, limits=LIMITS).pixels)


def claimed(looks: Sequence[Look]) -> list[tuple[int, int, float]]:
    """Return the pairs that are found, each image being another content."""
    pairs = find_near_duplicates([f"{row:064x}" for row in range(len(looks))], looks)
    return [(pair.first, pair.second, pair.likeness) for pair in pairs]


def read_photos(paths: Sequence[Path]) -> list[Picture]:
    """Return the photos that can be read, one of each content."""
    found: dict[bytes, Picture] = {}
    for path in paths:
        data = path.read_bytes()
        try:
            pixels = decode_image(data, short_side=None, limits=LIMITS).pixels
        except BadImageError:
            continue
        look = look_at(decode_image(data, short_side=SHORT_SIDE, limits=LIMITS).pixels)
        found.setdefault(data, Picture(str(path), Image.fromarray(pixels), look))
    return list(found.values())


def draw_pairs(photos: Sequence[Picture], pairs: Sequence[tuple[int, int, float]], path: Path) -> None:
    """Write a picture of pairs side by side, three pairs a row."""
    sheet = Image.new("RGB", (6 * SHEET_SIDE, (len(pairs) + 2) // 3 * SHEET_SIDE), "white")
    for place, (first, second, _) in enumerate(pairs):
        for column, row in enumerate((first, second)):
            small = ImageOps.contain(photos[row].photo, (SHEET_SIDE - 4, SHEET_SIDE - 4))
            sheet.paste(small, ((place % 3 * 2 + column) * SHEET_SIDE, place // 3 * SHEET_SIDE))
    sheet.save(path)


def cost(paths: Sequence[Path]) -> list[list[str]]:
    """Return rows of what ingesting takes and what the near duplicates take of it, CPU seconds of one process."""
    with tempfile.TemporaryDirectory() as folder:
        cache = DecodedCache(Path(folder), SHORT_SIDE, LIMITS)
        start = time.process_time()
        uris = [str(path) for path in paths]
        facts = [fact for at in range(0, len(uris), 64) for fact in cache.ingest(uris[at : at + 64])]
        ingest = time.process_time() - start
        good = [fact for fact in facts if fact.is_good]
        reader = cache.reader()
        pixels = [reader.pixels(fact.sha256).copy() for fact in good]
        start = time.process_time()
        for image in pixels:
            look_at(image)
        looking = time.process_time() - start
    start = time.process_time()
    find_near_duplicates([fact.sha256 for fact in good], [fact.look for fact in good])
    search = time.process_time() - start
    plain = ingest - looking
    rows = (("reading, decoding, writing the cache", plain), ("looking at each image", looking), ("search", search))
    return [[name, f"{s:.2f}", f"{1000 * s / len(good):.2f}", f"{100 * s / plain:.1f} %"] for name, s in rows]


def crowd_cost(number: int) -> list[list[object]]:
    """Return rows of what the search takes where all pictures have one background, CPU seconds of one process."""
    draws, line = np.random.default_rng(0), np.linspace(-1, 1, SIDE)
    noise = draws.normal(0, 25, (number, 10, 10))
    backgrounds = {
        "darker towards the edges": 220 - 80 * (line[:, None] ** 2 + line**2),
        "darker towards one side": np.broadcast_to(130 + 60 * line, (SIDE, SIDE)),
    }
    rows: list[list[object]] = []
    for name, background in backgrounds.items():
        pictures = np.repeat(background[None], number, axis=0)
        pictures[:, 11:21, 11:21] += noise
        thumbnails = np.clip(pictures, 0, 255).astype(np.uint8)
        start = time.process_time()
        pairs = find_lookalikes(thumbnails)
        compared = time.process_time()
        num_claimed = np.count_nonzero(show_the_same(thumbnails, pairs))
        seconds = (compared - start, time.process_time() - compared)
        rows.append([f"{number:,} pictures, {name}", *(f"{s:.2f}" for s in seconds), len(pairs.first), num_claimed])
    return rows


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--at-most", type=int, default=0, metavar="N", help="Photos that are taken. [default: all]")
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="Draw the pairs that are found in the folder.")
    parser.add_argument("--costs-only", action="store_true", help="Make no copies.")
    parser.add_argument(
        "--crowd", type=int, nargs="+", metavar="N", help="Measure N pictures on one background, alone."
    )
    given = parser.parse_args()
    if given.crowd:
        rows = [row for number in given.crowd for row in crowd_cost(number)]
        header = ("search", "frequencies, CPU s", "pixels, CPU s", "pairs looked at", "claimed")
        print(f"{table(header, rows)}\n\n{machine_line()}")
        return
    if given.folder is None:
        parser.error("FOLDER, or --crowd N")
    paths = sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    paths = paths[: given.at_most or None]
    print(f"{len(paths):,} files.\n\n{table(('what', 'CPU s', 'ms an image', 'of ingest'), cost(paths))}\n", flush=True)
    if given.costs_only:
        return
    photos = read_photos(paths)
    looks = [photo.look for photo in photos]
    own = claimed(looks)
    print(f"{len(photos):,} photos of different content; {len(own)} pairs of them are found:\n")
    for first, second, likeness in own:
        print(f"    {likeness:.2f}  {photos[first].name}  {photos[second].name}")
    if given.pairs and own:
        draw_pairs(photos, own, given.pairs)
    related = {(first, second) for first, second, _ in own}
    rows, all_found, all_wrong = [], 0, 0
    for kind, (change, quality) in KINDS.items():
        draws = np.random.default_rng(0)
        copies = [look_of(change(photo.photo, draws), quality) for photo in photos]
        pairs = {(first, second) for first, second, _ in claimed([*looks, *copies])}
        found = sum((row, row + len(photos)) in pairs for row in range(len(photos)))
        sources = [(min(p), max(p)) for p in ((a % len(photos), b % len(photos)) for a, b in pairs)]
        wrong = len({pair for pair in sources if pair[0] != pair[1]} - related)
        rows.append([kind, f"{100 * found / len(photos):.1f} %", len(photos) - found, wrong])
        all_found, all_wrong = all_found + found, all_wrong + wrong
    number = len(KINDS) * len(photos)
    rows.append(["all", f"{100 * all_found / number:.2f} %", number - all_found, all_wrong])
    print(f"\n{table(('copy', 'found', 'missed', 'pairs of other photos'), rows)}\n", flush=True)
    rows = []
    for kind, draw in BACKGROUNDS.items():
        pairs_there = claimed([look_of(draw(photo.photo), 85) for photo in photos])
        wrong = len({(first, second) for first, second, _ in pairs_there} - related)
        rows.append([kind, wrong, f"{1000 * wrong / len(photos):.1f}"])
    print(f"{table(('photos on one background', 'pairs', 'for 1,000 photos'), rows)}\n\n{machine_line()}")


if __name__ == "__main__":
    main()
