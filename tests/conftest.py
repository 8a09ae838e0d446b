"""What tests share: one Ray instance a session, and a folder of tiny images with its manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.quick_reports import quick_reports, remembering_makers
from tests.storage.s3 import s3_bucket, s3_process, s3_server
from transferlib.data.augment import Augmentation
from transferlib.data.batches import Renderer
from transferlib.data.cache import DecodedCache
from transferlib.data.decode import Limits
from transferlib.data.manifest import Manifest
from transferlib.data.source import PixelSource
from transferlib.data.sources import list_images
from transferlib.on_ray.session import keep_to_loopback
from transferlib.spec import DataSpec

__all__ = [
    "image_folder",
    "make_renderer",
    "quick_reports",
    "ray_instance",
    "remembering_makers",
    "s3_bucket",
    "s3_process",
    "s3_server",
]

# Ray reads this when it is imported: whatever outlives a test's Ray must not start another one.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
keep_to_loopback()

LIMITS = Limits(max_pixels=1_000_000, max_file_bytes=1_000_000)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the ledger of test readings of whoever runs the tests out of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def ray_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run one Ray with two logical CPUs for all tests that ask for it; no other test starts one."""
    from transferlib.on_ray.session import local_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        # Workers import this package from where the tests found it.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
        with local_ray(cpus=2, gpus=0, object_store=300 << 20):
            yield


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two classes of tiny noisy pictures, no two of one size: 41 for training, 13 and 11 held out."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, count in (("train", 41), ("val", 13), ("test", 11)):
        for index in range(count):
            folder = root / split / ("cat", "dog")[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            size = (40 + index % 7, 40 + index % 5)
            Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / f"{index:03}.png")
    return root


@pytest.fixture(scope="session")
def make_renderer(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Renderer]:
    """Return a maker of renderers over the tiny images at 32 px, from the cache or from the files."""
    folder = tmp_path_factory.mktemp("run")
    cache = DecodedCache(folder / "cache", 37, LIMITS)
    spec = DataSpec(path=str(image_folder), image_size=32)
    listing = list_images(image_folder)
    facts = cache.ingest([entry.uri for entry in listing.entries])
    Manifest.build(listing, facts, spec).save(folder / "manifest.parquet")
    source = PixelSource(str(folder / "manifest.parquet"), str(cache.root), 37, LIMITS)

    def make(*, cache: bool = True, seed: int = 5, augmentation: str = "strong") -> Renderer:
        where = source if cache else replace(source, cache_dir=None)
        return Renderer(where, Augmentation.from_spec(augmentation, 32), 32, seed)

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks on tiny images are many small operations, which threads on a busy machine only slow down."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
