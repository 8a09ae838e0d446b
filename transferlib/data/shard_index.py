"""Which shard holds which image: one index a process and folder, grown as shards appear."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from os import utime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transferlib.data.shards import SUFFIX, MappedShard, is_suspect


class ShardIndex:
    """Find images over all shards of a folder; a later shard wins over an earlier one, damage is never handed out.

    Every entry is checked against its checksum once a process, when it is first asked for; all entries of a shard that
    was written to after it was published are checked when it is first seen.

    Args:
        folder: Of shards; may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unreadable: set[str] = set()
        """Names of files that are no shards (any more)."""
        self._shards: dict[str, MappedShard] = {}
        self._places: dict[bytes, tuple[str, int]] = {}
        self._rejected: set[tuple[str, int]] = set()
        self._verified: set[tuple[str, int]] = set()
        self._lock = threading.RLock()

    def refresh(self) -> None:
        """Take up shards that have appeared and let go of those that are gone."""
        with self._lock:
            present = sorted(path.name for path in self.folder.glob(f"*{SUFFIX}"))
            gone = self._shards.keys() - set(present)
            for name in gone:
                del self._shards[name]
            if gone:
                self._places = {}
            for name in present:
                is_new = name not in self._shards and name not in self.unreadable
                if is_new:
                    self._open(name)
                if (is_new or gone) and name in self._shards:
                    self._enter(name)

    def _open(self, name: str) -> None:
        path = self.folder / name
        try:
            shard = MappedShard(path)
            suspect = is_suspect(path)
        except FileNotFoundError:  # evicted since it was listed
            return
        except (pa.ArrowException, OSError, ValueError):
            self.unreadable.add(name)
            return
        self._shards[name] = shard
        if suspect:
            self._rejected |= {(name, row) for row in range(len(shard)) if not shard.is_intact(row)}

    def _enter(self, name: str) -> None:
        for row, sha256 in enumerate(self._shards[name].columns.sha256):
            if (name, row) not in self._rejected:
                self._places[sha256] = (name, row)

    def find(self, sha256: bytes) -> tuple[MappedShard, int] | None:
        """Return the shard and row of an image that was found intact, or None.

        Args:
            sha256: 32 bytes, of the source file.
        """
        with self._lock:
            while (place := self._places.get(sha256)) is not None:
                name, row = place
                shard = self._shards[name]
                if place in self._verified:
                    return shard, row
                if shard.is_intact(row):
                    self._verified.add(place)
                    return shard, row
                self.reject(sha256)
            return None

    def holds(self, sha256: bytes) -> bool:
        """Say whether an image is there, without reading it; shards that were touched have been read already."""
        return sha256 in self._places

    def reject(self, sha256: bytes) -> None:
        """Hand out this copy of an image no more; an earlier intact copy takes its place."""
        with self._lock:
            place = self._places.pop(sha256, None)
            if place is None:
                return
            self._rejected.add(place)
            for name in sorted(self._shards):
                self._places.update(
                    (sha256, (name, row))
                    for row, other in enumerate(self._shards[name].columns.sha256)
                    if other == sha256 and (name, row) not in self._rejected
                )

    def verify(self, sha256: bytes) -> bool:
        """Read an image now, whatever was found before, and say whether an intact copy is here."""
        with self._lock:
            self._verified.discard(self._places.get(sha256, ("", -1)))
            return self.find(sha256) is not None

    def paths_of(self, sha256s: Iterable[bytes]) -> set[Path]:
        """Return the shards that hold these images."""
        with self._lock:
            names = {self._places[sha256][0] for sha256 in sha256s if sha256 in self._places}
        return {self.folder / name for name in names}

    def pixels(self, sha256: bytes) -> npt.NDArray[np.uint8] | None:
        """Return an intact image as a read-only view [H, W, 3] of its file, or None."""
        found = self.find(sha256)
        return None if found is None else found[0].pixels(found[1])

    def mark_used(self) -> None:
        """Record now as the last use of every shard, for eviction."""
        now = time.time_ns()
        for name in list(self._shards):
            path = self.folder / name
            with suppress(OSError):  # gone, or a cache that this user may only read: then no use to record
                utime(path, ns=(now, path.stat().st_mtime_ns))


@cache
def shard_index(folder: Path) -> ShardIndex:
    """Return this process's index of a folder."""
    return ShardIndex(folder)
