"""The cache of decoded images, from the command line."""

from __future__ import annotations

import time
from pathlib import Path

from transferlib.cli.tables import text_table
from transferlib.data.cache_dir import default_cache_dir
from transferlib.data.eviction import clear_caches, list_caches
from transferlib.words import count, size


def cache_lines(cache_dir: str | None) -> list[str]:
    """Return a table of what is kept, a row an image size and decoder version.

    Args:
        cache_dir: Of the cache; None: the default one.
    """
    root = _root(cache_dir)
    folders = list_caches(root)
    if not folders:
        return [f"No decoded images in {root}."]
    rows = [
        [
            f"{folder.short_side} px",
            folder.decoder,
            f"{folder.num_images:,}",
            size(folder.size_bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(folder.last_used)) if folder.last_used else "",
        ]
        for folder in folders
    ]
    table = text_table(["short side", "decoder", "images", "size", "last used"], rows, left=2)
    return [*table, f"{size(sum(folder.size_bytes for folder in folders))} in {root}"]


def describe(cache_dir: str | None) -> str:
    """Return how much is kept and where, as a sentence."""
    root = _root(cache_dir)
    folders = list_caches(root)
    images = count(sum(folder.num_images for folder in folders), "decoded image")
    return f"{images}, {size(sum(folder.size_bytes for folder in folders))}, in {root}."


def clear_cache(cache_dir: str | None) -> str:
    """Delete what is kept; return a sentence with the bytes freed."""
    return f"Freed {size(clear_caches(_root(cache_dir)))}."


def _root(cache_dir: str | None) -> Path:
    return Path(cache_dir).expanduser().absolute() if cache_dir else default_cache_dir()
