"""Measure our input pipeline against the PyTorch tutorial's DataLoader, interleaved in one run.

    python benchmarks/input_pipeline.py                      photo-like JPEGs that it makes itself
    python benchmarks/input_pipeline.py --data photos/       an image folder (class/...)
    python benchmarks/input_pipeline.py --markdown docs/benchmarks/input_pipeline_<hardware>_<yyyymm>.md

Three contenders deliver batches of 32 at 224 px through RandomResizedCrop, RandomHorizontalFlip, RandomRotation(10) and
ColorJitter(0.2, 0.2, 0.2): the tutorial's (ImageFolder, Pillow, torchvision, DataLoader with 2 workers), ours from the
decoded cache, ours from the files. All end as normalised float32 tensors; ours also as the bytes that travel to a GPU.
A rate is counted after a warm-up, so start-up stands apart. Rates of one round are compared with each other.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from transferlib.data.augment import Augmentation
from transferlib.data.batches import Renderer
from transferlib.data.cache import DecodedCache
from transferlib.data.decode import Limits, decode_image
from transferlib.data.manifest import Manifest
from transferlib.data.schedule import Schedule
from transferlib.data.source import PixelSource
from transferlib.data.sources import list_images
from transferlib.data.torch_dataset import IMAGENET_MEAN, IMAGENET_STD
from transferlib.on_ray.data import RayStream, ingest_images
from transferlib.on_ray.session import local_ray
from transferlib.spec import DataSpec
from transferlib.training.normaliser import Normaliser

SIZE, SHORT_SIDE, BATCH, CPUS = 224, 256, 32, 2
LIMITS = Limits(178_956_970, 500_000_000)
TUTORIAL = "tutorial: DataLoader, 2 workers, Pillow"


@dataclass
class Contender:
    """Something that delivers batches; each call of `start` begins anew."""

    name: str
    start: Callable[[], Iterator[int]]
    rates: list[float] = field(default_factory=list)
    first_batch_s: list[float] = field(default_factory=list)

    def measure(self, warm_up_s: float, seconds: float) -> None:
        """Run once: seconds to the first batch, then images a second after the warm-up."""
        began = time.perf_counter()
        batches = self.start()
        next(batches)
        self.first_batch_s.append(time.perf_counter() - began)
        warm = time.perf_counter() + warm_up_s
        while time.perf_counter() < warm:
            next(batches)
        began, images = time.perf_counter(), 0
        while (now := time.perf_counter()) < began + seconds:
            images += next(batches)
        self.rates.append(images / (now - began))
        batches.close()  # type: ignore[attr-defined]


def make_photos(folder: Path, count: int, seed: int = 0) -> None:
    """Write photo-like JPEGs of 400 to 500 px in four classes: colour at several scales, edges and sensor noise."""
    generator = np.random.default_rng(seed)
    for index in range(count):
        width, height = (int(side) for side in generator.integers(400, 501, 2))
        picture = np.zeros((height, width, 3), np.float32)
        for cells, weight in ((3, 1.0), (9, 0.6), (27, 0.35), (81, 0.2)):
            octave = generator.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
            grown = Image.fromarray(octave).resize((width, height), Image.Resampling.BICUBIC)
            picture += weight * (np.asarray(grown, np.float32) - 127)
        picture += generator.normal(0, 4, (height, width, 1)).astype(np.float32)
        target = folder / f"class{index % 4}" / f"{index:05}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture + 127).clip(0, 255).astype(np.uint8)).save(target, quality=90)


def tutorial(folder: Path) -> Iterator[int]:
    """Deliver batches as pytorch.org's transfer learning tutorial does."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(10),
            transforms.ColorJitter(0.2, 0.2, 0.2),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    loader = DataLoader(datasets.ImageFolder(str(folder), transform), batch_size=BATCH, shuffle=True, num_workers=CPUS)
    while True:
        for images, _ in loader:
            yield len(images)


def ours(source: PixelSource, as_tensors: bool) -> Iterator[int]:
    """Deliver the train batches of a training that does not end."""
    renderer = Renderer(source, Augmentation.from_spec("standard", SIZE), SIZE, seed=0)
    steps = Schedule(source.open().images, 0, BATCH, BATCH, 10_000).steps(0, 1)
    normalise = Normaliser(IMAGENET_MEAN, IMAGENET_STD, torch.device("cpu"))
    train_steps = (step for step in steps if step.phase == "train")
    with closing(RayStream(renderer, lanes=CPUS).open(train_steps)) as batches:
        for batch in batches:
            if as_tensors:
                normalise.images(batch.pixels)
            yield len(batch.pixels)


def prepare(folder: Path, work: Path) -> tuple[PixelSource, float]:
    """Ingest the images; return the source and the files ingested a second."""
    listing = list_images(folder)
    cache = DecodedCache(work / "cache", SHORT_SIDE, LIMITS)
    uris = [entry.uri for entry in listing.entries]
    began = time.perf_counter()
    facts = ingest_images(cache, uris, LIMITS, CPUS)
    seconds = time.perf_counter() - began
    Manifest.build(listing, facts, DataSpec(path=str(folder))).save(work / "manifest.parquet")
    source = PixelSource(str(work / "manifest.parquet"), str(cache.root), SHORT_SIDE, LIMITS)
    return source, len(uris) / seconds


def stages(source: PixelSource) -> dict[str, float]:
    """Return what each stage costs in one process without Ray, ms an image."""
    opened = source.open()
    rows = opened.images.rows("train")[:256]
    renderer = Renderer(source, Augmentation.from_spec("standard", SIZE), SIZE, seed=0)
    files = [Path(opened.images.uris[row]).read_bytes() for row in rows]
    images = opened.pixels(rows)
    sizes = np.array([image.shape[:2] for image in images])
    pixels = renderer.render("train", 0, rows)
    normalise = Normaliser(IMAGENET_MEAN, IMAGENET_STD, torch.device("cpu"))
    parts: dict[str, Callable[[], Any]] = {
        "decode a JPEG (Pillow)": lambda: [decode_image(f, short_side=SHORT_SIDE, limits=LIMITS) for f in files],
        "look up in the cache": lambda: opened.pixels(rows),
        "augmentation draws": lambda: renderer.augmentation.draw(0, 0, opened.images.keys[rows], sizes),
        "draws and pixels": lambda: renderer.render("train", 0, rows),
        "bytes to normalised floats": lambda: [normalise.images(pixels[i : i + BATCH]) for i in range(0, 256, BATCH)],
    }
    return {name: min(_seconds(part) for _ in range(3)) / len(rows) * 1e3 for name, part in parts.items()}


def _seconds(part: Callable[[], Any]) -> float:
    began = time.process_time()
    part()
    return time.process_time() - began


def machine() -> str:
    """Describe processor, cores and versions in one line each."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    packages = ("torch", "torchvision", "ray", "numpy", "pillow", "opencv-python-headless", "pyarrow")
    return (
        f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"load {os.getloadavg()[0]:.1f} at the start; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def spread(values: list[float], digits: int = 0) -> str:
    """Return median and range."""
    low, middle, high = (f"{v:,.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def report(contenders: list[Contender], costs: dict[str, float], ingest_rate: float, header: str, number: int) -> str:
    """Return the result as Markdown."""
    base = contenders[0]
    lines = [
        "# The input pipeline against the tutorial's DataLoader",
        "",
        f"{datetime.date.today().isoformat()}, `python benchmarks/input_pipeline.py`, {number} images, "
        f"{len(base.rates)} rounds, contenders interleaved; {header}.",
        "",
        "Median over rounds (smallest to largest). The ratio is taken within each round.",
        "",
        "| way | images/s | times the tutorial | first batch, s |",
        "|---|---|---|---|",
    ]
    for contender in contenders:
        ratios = [mine / theirs for mine, theirs in zip(contender.rates, base.rates, strict=True)]
        lines.append(
            f"| {contender.name} | {spread(contender.rates)} | {spread(ratios, 2)} "
            f"| {spread(contender.first_batch_s, 2)} |"
        )
    lines += ["", f"Ingesting (read, hash, decode, write the cache): {ingest_rate:,.0f} files/s.", ""]
    lines += ["| stage, one process, no Ray | CPU ms an image |", "|---|---|"]
    lines += [f"| {name} | {cost:.3f} |" for name, cost in costs.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an image folder; default: photo-like JPEGs made for the run")
    parser.add_argument("--images", type=int, default=1500, help="how many to make (default 1500)")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--seconds", type=float, default=6.0, help="counted a contender and round (default 6)")
    parser.add_argument("--markdown", type=Path, help="also write the result here")
    options = parser.parse_args()
    header = machine()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="tl-bench-") as name:
        work = Path(name)
        folder = options.data or work / "photos"
        if options.data is None:
            make_photos(folder, options.images)
        with local_ray(cpus=CPUS, gpus=0, object_store=1 << 30):
            source, ingest_rate = prepare(folder, work)
            files = PixelSource(source.manifest, None, source.short_side, source.limits)
            contenders = [
                Contender(TUTORIAL, lambda: tutorial(folder)),
                Contender("ours from the cache, tensors", lambda: ours(source, True)),
                Contender("ours from the cache, bytes", lambda: ours(source, False)),
                Contender("ours from JPEG, tensors", lambda: ours(files, True)),
                Contender("ours from JPEG, bytes", lambda: ours(files, False)),
            ]
            for number in range(options.rounds):
                for contender in contenders:
                    contender.measure(warm_up_s=2.0, seconds=options.seconds)
                    print(f"round {number + 1}  {contender.name:40} {contender.rates[-1]:8.0f} images/s", flush=True)
            text = report(contenders, stages(source), ingest_rate, header, len(source.open().images))
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
