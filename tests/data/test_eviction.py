from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transferlib.data import eviction, file_index, shard_index, shards
from transferlib.data.cache import DecodedCache, ImageFacts
from transferlib.data.decode import Limits
from transferlib.data.eviction import list_caches

LIMITS = Limits(max_pixels=1_000_000, max_file_bytes=1_000_000)


@pytest.fixture(autouse=True)
def _fresh_process() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    """Forget what this process knows of caches, as a new process would."""
    shard_index.shard_index.cache_clear()
    file_index.file_index.cache_clear()


def png(seed: int, height: int = 30, width: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def photos(folder: Path, number: int, first: int = 0) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{place}.png" for place in range(first, first + number)]
    for path in paths:
        path.write_bytes(png(int(path.stem)))
    return [str(path) for path in paths]


def cache_in(tmp_path: Path, short_side: int = 16, limits: Limits = LIMITS) -> DecodedCache:
    return DecodedCache(tmp_path / "cache", short_side, limits)


def shard_files(cache: DecodedCache) -> list[Path]:
    return sorted((cache.folder / "pixels").glob("*.arrow"))


def good(found: list[ImageFacts | None]) -> list[ImageFacts]:
    assert all(facts is not None and facts.is_good for facts in found)
    return [facts for facts in found if facts is not None]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_truncated_shard_is_as_good_as_gone_and_eviction_removes_it(tmp_path: Path, kept: float) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 3)
    facts = cache.ingest(uris)
    shard = shard_files(cache)[0]
    os.truncate(shard, int(shard.stat().st_size * kept))
    forget()
    assert cache.known(uris) == [None] * 3
    cache.ingest(uris)
    assert good(cache.known(uris)) == facts
    cache.evict(0)
    assert shard not in shard_files(cache)
    assert good(cache.known(uris)) == facts


def test_sizes_are_kept_apart(tmp_path: Path) -> None:
    small, large = cache_in(tmp_path, 8), cache_in(tmp_path, 24)
    uris = photos(tmp_path / "in", 1)
    facts = small.ingest(uris)
    assert large.known(uris) == [None]
    large.ingest(uris)
    assert small.reader().pixels(facts[0].sha256).shape == (8, 10, 3)
    assert large.reader().pixels(facts[0].sha256).shape == (24, 32, 3)
    assert [(of.short_side, of.num_images) for of in list_caches(tmp_path / "cache")] == [(24, 1), (8, 1)]


def test_eviction_takes_the_least_lately_used_and_spares_what_is_in_use(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 4)
    facts = [cache.ingest([uri])[0] for uri in uris]
    for age, shard in enumerate(reversed(shard_files(cache))):
        os.utime(shard, ns=((1000 - age) * 10**9, shard.stat().st_mtime_ns))
    one = shard_files(cache)[0].stat().st_size
    index = sum(path.stat().st_size for path in (cache.folder / "files").iterdir())
    assert cache.evict(0) == 0
    assert cache.evict(index + 3 * one, in_use=[facts[0].sha256]) == one
    assert [found is None for found in cache.known(uris)] == [False, True, False, False]
    assert cache.evict(1, in_use=[facts[0].sha256]) == 2 * one
    good(cache.known(uris[:1]))


def test_use_counts_as_use(tmp_path: Path) -> None:
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 1)
    cache.ingest(uris)
    shard = shard_files(cache)[0]
    os.utime(shard, ns=(10**9, shard.stat().st_mtime_ns))
    forget()
    before = shard.stat().st_mtime_ns
    cache.reader()
    assert time.time() - shard.stat().st_atime < 60
    assert shard.stat().st_mtime_ns == before
    assert not shards.is_suspect(shard)


def test_stale_temporary_files_go_and_fresh_ones_stay(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.ingest(photos(tmp_path / "in", 1))
    stale, fresh = (cache.folder / "pixels" / f"{name}.tmp" for name in ("stale", "fresh"))
    for path in (stale, fresh):
        path.write_bytes(b"x")
    os.utime(stale, (1, 1))
    cache.evict(10**9)
    assert not stale.exists()
    assert fresh.exists()


def test_many_index_files_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_index, "MOST_FILES", 3)
    cache, uris = cache_in(tmp_path), photos(tmp_path / "in", 6)
    facts = [cache.ingest([uri])[0] for uri in uris]
    cache.evict(0)
    assert len(list((cache.folder / "files").iterdir())) == 1
    assert good(cache.known(uris)) == facts
    forget()
    assert good(cache.known(uris)) == facts


def test_clear_removes_the_cache_and_nothing_else(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.ingest(photos(tmp_path / "in", 2))
    own = tmp_path / "cache" / "my notes.txt"
    own.write_text("keep")
    assert cache.clear() > 0
    assert cache.size_bytes() == 0
    assert list((tmp_path / "cache").iterdir()) == [own]
    assert eviction.list_caches(tmp_path / "nothing") == []
