"""What the images say about themselves, without a training: the same reading, search and cut that every run makes."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from transferlib.data.cache import DecodedCache
from transferlib.data.facts import ImageFacts
from transferlib.data.health import printable
from transferlib.data.manifest import Manifest
from transferlib.data.near_notes import copy_pairs, count_near
from transferlib.words import count

_FILES_PER_TASK = 64
MOST_PAIRS = 10
"""Shown on a terminal."""


def read_images(
    cache: DecodedCache, uris: Sequence[str], num_processes: int, on_progress: Callable[[int, int], None]
) -> list[ImageFacts]:
    """Read and decode images once, in processes of this machine; what is decoded stays in the cache for a run.

    Args:
        cache: Where decoded images are kept.
        uris: Absolute paths or URIs.
        num_processes: That decode side by side.
        on_progress: Called with (files done, files in all).

    Raises:
        CacheWriteError: The cache cannot be written.
        StorageUnreachableError: The store of a URI does not answer.
    """
    facts = dict(enumerate(cache.known(uris)))
    missing = [row for row, known in facts.items() if known is None]
    blocks = [missing[start : start + _FILES_PER_TASK] for start in range(0, len(missing), _FILES_PER_TASK)]
    work = [[uris[row] for row in block] for block in blocks]
    for block, found in zip(blocks, _ingest(cache, work, num_processes), strict=True):
        facts |= dict(zip(block, found, strict=True))
        on_progress(sum(fact is not None for fact in facts.values()), len(uris))
    return [fact for row in range(len(uris)) if (fact := facts[row]) is not None]


def _ingest(cache: DecodedCache, work: list[list[str]], num_processes: int) -> Iterator[list[ImageFacts]]:
    if len(work) < 2 or num_processes < 2:  # processes take longer to start
        yield from map(cache.ingest, work)
        return
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(_ingest_block, cache), work)


def _ingest_block(cache: DecodedCache, uris: list[str]) -> list[ImageFacts]:
    return cache.ingest(uris)


@dataclass(frozen=True)
class DataCheck:
    """Say what a manifest's images are like."""

    manifest: Manifest

    @property
    def warnings(self) -> list[str]:
        """Return what somebody should decide before training."""
        start = "warning: "
        return [line.removeprefix(start) for line in self.manifest.summary_lines("--json") if line.startswith(start)]

    def lines(self) -> list[str]:
        """Return all of it for a terminal."""
        told = self.manifest.summary_lines("--json")
        split = next((row for row, line in enumerate(told) if line.startswith("warning: ")), len(told))
        return [*told[:split], *self._size_lines(), *self._copy_lines(), *told[split:]]

    def to_plain(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        counts = self.manifest.count_by_split_and_class()
        statuses = Counter(self.manifest.table["status"].to_pylist())
        found, pairs = count_near(self.manifest.table), copy_pairs(self.manifest.table)
        return {
            "root": self.manifest.root,
            "images": sum(sum(of.values()) for of in counts.values()),
            "counts": counts,
            "smallest_class": self._smallest_class(),
            "statuses": dict(sorted(statuses.items())),
            "left_out": [
                {name: row[name] for name in ("image_id", "status", "reason")}
                for row in self.manifest.table.to_pylist()
                if row["status"] != "used"
            ],
            "short_side": self._short_sides(),
            "remarks": [
                {"image_id": row["image_id"], "remarks": row["remarks"].split("; ")}
                for row in self._used()
                if row["remarks"]
            ],
            "same_content": self._num_copies(),
            "near_duplicates": {**found._asdict(), "pairs": [pair.to_plain() for pair in pairs]},
            "warnings": self.warnings,
        }

    def _used(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.manifest.table.to_pylist()
        return [row for row in rows if row["status"] == "used"]

    def _smallest_class(self) -> dict[str, Any]:
        counts = self.manifest.count_by_split_and_class()
        sizes = {label: sum(of[label] for of in counts.values()) for label in self.manifest.classes}
        label = min(sizes, key=lambda label: (sizes[label], label))
        return {"label": label, "images": sizes[label]}

    def _num_copies(self) -> int:
        contents = Counter(row["sha256"] for row in self._used())
        return sum(number - 1 for number in contents.values())

    def _short_sides(self) -> dict[str, int]:
        sides = np.array([min(row["width"], row["height"]) for row in self._used()])
        return {"smallest": int(sides.min()), "median": int(np.median(sides)), "largest": int(sides.max())}

    def _size_lines(self) -> list[str]:
        sides, smallest = self._short_sides(), self._smallest_class()
        return [
            f"Short side: {sides['smallest']:,} to {sides['largest']:,} pixels; half have {sides['median']:,} or more.",
            f"Smallest class: {printable(smallest['label'])}, {smallest['images']:,} images.",
        ]

    def _copy_lines(self) -> list[str]:
        lines, number = [], self._num_copies()
        if number:
            has = count(number, "used image has", "used images have")
            lines.append(f"Copies: {has} the same content as another.")
        pairs = copy_pairs(self.manifest.table)
        for pair in pairs[:MOST_PAIRS]:
            named = (f"{side.image_id} ({side.label}, {side.split or 'left out'})" for side in pair.sides)
            one, other = map(printable, named)
            lines.append(f"  {one} {'is' if pair.is_same_content else 'shows'} the same as {other}")
        if len(pairs) > MOST_PAIRS:
            lines.append(f"  ... and {len(pairs) - MOST_PAIRS:,} more; --json has all")
        return lines
