"""Where pixels come from: the decoded cache, or the files themselves. Either way the same pixels for the same row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from transferlib.data.cache import CacheReader, DecodedCache, MissingPixelsError
from transferlib.data.decode import BadImageError, Limits, decode_image
from transferlib.data.depth_scale import DepthFacts
from transferlib.data.facts import Reading, depth_text, read_files
from transferlib.data.images import ImageTable
from transferlib.data.manifest import Manifest
from transferlib.data.schedule import Rows
from transferlib.errors import DataError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PixelSource:
    """Say where a run's pixels are; travels to any process, which opens it once."""

    manifest: str
    """Path of `manifest.parquet`, absolute."""
    cache_dir: str | None
    """Root of the decoded cache; None: decode the files each time."""
    short_side: int
    """Of the decoded images, pixels."""
    limits: Limits
    """What is refused before decoding."""

    def open(self) -> OpenSource:
        """Return the open source; the same object for the same manifest, so that nothing is read twice a process.

        Raises:
            DataError: The manifest cannot be read.
        """
        try:
            found = os.stat(self.manifest)
        except OSError as error:
            raise DataError(f"The manifest {self.manifest} cannot be read: {error.strerror}.") from None
        return _open(self, found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=4)
def _open(source: PixelSource, mtime_ns: int, size: int, inode: int) -> OpenSource:
    return OpenSource(source)


class OpenSource:
    """Hand out images by row.

    Args:
        source: What to open.
    """

    def __init__(self, source: PixelSource) -> None:
        self._source = source
        self.manifest = Manifest.load(Path(source.manifest))
        self.images: ImageTable = self.manifest.images()

    @cached_property
    def _cache(self) -> DecodedCache | None:
        source = self._source
        return (
            None
            if source.cache_dir is None
            else DecodedCache(Path(source.cache_dir), source.short_side, source.limits, self.images.scale)
        )

    @cached_property
    def _reader(self) -> CacheReader | None:
        return None if self._cache is None else self._cache.reader()

    def pixels(self, rows: Rows | Sequence[int]) -> list[Pixels]:
        """Return decoded images.

        Args:
            rows: Of the image table, [B].

        Returns:
            B images, uint8 [H, W, 3], RGB, short side as the source says; perhaps read-only.

        Raises:
            DataError: A file is gone or is no longer what the manifest says.
            StorageUnreachableError: The store that a file is to be read from does not answer.
        """
        if self._reader is None:
            uris = [self.images.uris[int(row)] for row in rows]
            readings = read_files(uris, self._source.limits)
            return [self._decoded(int(row), reading) for row, reading in zip(rows, readings, strict=True)]
        found = {int(row): self._find(int(row)) for row in rows}
        if missing := [row for row, pixels in found.items() if pixels is None]:
            self._rebuild(missing)
            found |= {row: self._find(row) for row in missing}
        return [pixels for row in rows if (pixels := found[int(row)]) is not None]

    def _find(self, row: int) -> Pixels | None:
        assert self._reader is not None
        try:
            return self._reader.pixels(self.images.sha256[row])
        except MissingPixelsError:
            return None

    def _rebuild(self, rows: list[int]) -> None:
        """Make again what the cache of this node lacks: it may be evicted or damaged while a run goes on."""
        assert self._cache is not None
        for row, facts in zip(rows, self._cache.ingest([self.images.uris[row] for row in rows]), strict=True):
            if facts.reason or facts.sha256 != self.images.sha256[row]:
                raise self._changed(row, facts.reason)
            self._check_scale(row, facts.depth)

    def _decoded(self, row: int, reading: Reading) -> Pixels:
        source = self._source
        if isinstance(reading, Exception):
            raise self._changed(row, str(reading))
        data, _ = reading
        if hashlib.sha256(data).hexdigest() != self.images.sha256[row]:
            raise self._changed(row, "")
        try:
            decoded = decode_image(data, short_side=source.short_side, limits=source.limits, scale=self.images.scale)
        except BadImageError as error:
            raise self._changed(row, str(error)) from None
        self._check_scale(row, depth_text(decoded))
        return decoded.pixels

    def _check_scale(self, row: int, depth: str) -> None:
        """Refuse a deep image whose range nobody knows: it would be shown as no model has seen it."""
        scale = self.images.scale
        if depth and (scale is None or scale.of(DepthFacts.from_text(depth).kind) is None):
            raise DataError(
                f"{self.images.uris[row]} has more than 8 bits a sample, and the manifest {self._source.manifest} does "
                "not say which values are black and white: an older version scaled each such image on its own. Start a "
                "new run."
            )

    def _changed(self, row: int, reason: str) -> DataError:
        what = reason or "its content is another one"
        return DataError(
            f"{self.images.uris[row]} changed since this run's manifest was made: {what}. "
            "Bring the file back as it was, or start a new run."
        )
