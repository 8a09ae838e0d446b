"""The cache as files on disk: how much there is, and what goes when it is too much."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from transferlib.data.shards import SUFFIX, TEMPORARY_SUFFIX, MappedShard

FOLDER_PATTERN = re.compile(r"decoded-(\d+)px-(.+)")
PARTS = ("pixels", "files")
STALE_TEMPORARY_S = 3600.0
"""Age at which a temporary file was left by a process that is gone: a shard takes minutes at most."""


@dataclass(frozen=True)
class CacheFolder:
    """Describe the images of one size and decoder version."""

    path: str
    short_side: int
    """Pixels."""
    decoder: str
    num_images: int
    """Entries in readable shards; content that was rebuilt counts twice until the older copy is evicted."""
    size_bytes: int
    last_used: float
    """Unix time."""


def list_caches(root: Path) -> list[CacheFolder]:
    """Describe what a cache holds, by size and decoder version; an empty list where there is none."""
    return [_describe(folder) for folder in _folders(root)]


def _describe(folder: Path) -> CacheFolder:
    match = FOLDER_PATTERN.fullmatch(folder.name)
    assert match is not None  # _folders yields only such names
    images, used = 0, 0.0
    for shard in (folder / "pixels").glob(f"*{SUFFIX}"):
        try:
            images += len(MappedShard(shard))
            used = max(used, shard.stat().st_atime)
        except (pa.ArrowException, OSError, ValueError):  # broken or just evicted: no images there
            continue
    return CacheFolder(str(folder), int(match[1]), match[2], images, sum(_sizes([folder]).values()), used)


def total_bytes(root: Path) -> int:
    """Return the size of all our files under a cache's root."""
    return sum(_sizes(_folders(root)).values())


def evict_shards(root: Path, max_bytes: int, keep: Iterable[Path], broken: Iterable[Path] = ()) -> int:
    """Remove broken leftovers, then the shards least lately used until the cache is small enough.

    Args:
        root: Of the cache.
        max_bytes: 0: no limit.
        keep: Shards that stay.
        broken: Shards that cannot be read; they go in any case.

    Returns:
        Bytes freed.
    """
    kept = set(keep)
    stale = [
        path for path in _sizes(_folders(root)) if path.suffix == TEMPORARY_SUFFIX and _age_s(path) > STALE_TEMPORARY_S
    ]
    freed = sum(_remove(path) for path in (*stale, *broken))
    if not max_bytes:
        return freed
    total = total_bytes(root)
    shards = [
        path
        for path in _sizes(_folders(root))
        if path.suffix == SUFFIX and path.parent.name == "pixels" and path not in kept
    ]
    for path in sorted(shards, key=_last_used):
        if total <= max_bytes:
            break
        gone = _remove(path)
        freed += gone
        total -= gone
    return freed


def clear_caches(root: Path) -> int:
    """Remove all our files under a root, and nothing else that may lie there; return the bytes freed."""
    freed = 0
    for folder in _folders(root):
        freed += sum(_remove(path) for path in _sizes([folder]))
        for emptied in (*(folder / part for part in PARTS), folder):
            if emptied.is_dir() and not any(emptied.iterdir()):
                emptied.rmdir()
    return freed


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if FOLDER_PATTERN.fullmatch(path.name) and path.is_dir())


def _sizes(folders: Iterable[Path]) -> dict[Path, int]:
    """Return our files and their sizes, bytes."""
    sizes: dict[Path, int] = {}
    for folder in folders:
        for part in PARTS:
            for path in (folder / part).glob("*"):
                if path.suffix in (SUFFIX, TEMPORARY_SUFFIX):
                    try:
                        sizes[path] = path.stat().st_size
                    except FileNotFoundError:  # renamed or evicted by another process
                        continue
    return sizes


def _remove(path: Path) -> int:
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def _last_used(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_atime, path.name
    except FileNotFoundError:
        return 0.0, path.name


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
