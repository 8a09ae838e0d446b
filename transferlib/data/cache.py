"""The decoded cache: each image once, as 8-bit RGB at the size a run needs, shared by trials, epochs and runs.

    <root>/decoded-256px-<decoder version>/
      pixels/<time>-<process>-<random>.arrow    shards: images by sha256, with checksums; written once, by one process
      files/<time>-<process>-<random>.arrow     which file (path, size, mtime) was found to have which content

A deep picture (more than 8 bits a sample) is kept under its content and the range that it is scaled by, all others
under their content alone: photographs serve every run, whatever stands beside them, and another range finds no pixels
of an older one. What a picture says of its scale is remembered with the file, so the range of a data set that was read
before is known without reading it again.

Several processes write at once, a shard each, under a temporary name and by rename; nothing is changed in place. What
is damaged is found by its checksum and rebuilt by reading the file again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from transferlib.data.cache_dir import default_cache_dir
from transferlib.data.decode import DECODER_VERSION, BadImageError, Decoded, Limits, check_size, decode_image
from transferlib.data.depth_scale import DepthFacts, DepthScale
from transferlib.data.eviction import clear_caches, evict_shards, total_bytes
from transferlib.data.facts import (
    ImageFacts,
    Reading,
    UnreadableFileError,
    depth_text,
    read_files,
    stamp_file,
    stamp_files,
)
from transferlib.data.file_index import KnownFile, file_index, write_known
from transferlib.data.looks import Look, look_at
from transferlib.data.shard_index import ShardIndex, shard_index
from transferlib.data.shards import ShardWriter
from transferlib.errors import CacheWriteError

__all__ = ["CacheReader", "DecodedCache", "ImageFacts", "MissingPixelsError", "default_cache_dir"]


class MissingPixelsError(LookupError):
    """Report an image that the cache does not hold, or holds damaged: ingest its file again."""


@dataclass(frozen=True)
class DecodedCache:
    """Keep decoded images of one size; holds paths and numbers only, so it travels to any process of the node."""

    root: Path
    """Absolute."""
    short_side: int
    """Of the kept images, pixels."""
    limits: Limits
    """What is refused before decoding."""
    scale: DepthScale | None = None
    """Of the data set's deep pictures; None: not known yet, so of those only facts are kept."""

    @property
    def folder(self) -> Path:
        """Return the folder of this size and decoder version."""
        return self.root / f"decoded-{self.short_side}px-{DECODER_VERSION}"

    def known(self, uris: Sequence[str]) -> list[ImageFacts | None]:
        """Say what is known of files without reading them.

        Args:
            uris: Absolute paths or URIs.

        Returns:
            For each file: its facts where it is unchanged since it was read (path, size, mtime) and either its pixels
            are here, or it is known to be bad, or it is deep and there is no scale yet; otherwise None.
        """
        files, shards = file_index(self.folder / "files"), self._shards()
        files.refresh()
        found: list[ImageFacts | None] = []
        for stamp in stamp_files(uris):
            facts = files.find(stamp, self.limits) if stamp is not None else None
            found.append(facts if facts is not None and self._needs_nothing(facts, shards) else None)
        return found

    def _needs_nothing(self, facts: ImageFacts, shards: ShardIndex) -> bool:
        if not facts.is_good or (facts.depth and self.scale is None):
            return True
        key = self._key(facts, bytes.fromhex(facts.sha256))
        return key is not None and shards.holds(key)

    def _key(self, facts: ImageFacts, digest: bytes) -> bytes | None:
        """Return what an image's pixels are kept under; None for a deep one of a kind without a range."""
        if not facts.depth:
            return digest
        return None if self.scale is None else self.scale.cache_key(digest, DepthFacts.from_text(facts.depth).kind)

    def _keys(self, sha256: str) -> list[bytes]:
        """Return all that an image's pixels may be kept under, where it is not known whether it is deep."""
        return cache_keys(sha256, self.scale)

    def ingest(self, uris: Sequence[str]) -> list[ImageFacts]:
        """Read each file once (hash, header, decode) and keep its pixels; one shard a call.

        Content that is here already and intact is not decoded again. Memory is bounded by a record batch, not by the
        number of files. Calls of several processes do not disturb each other.

        Args:
            uris: Absolute paths or URIs; some hundreds make a good shard.

        Returns:
            Facts in the same order; a bad file has a reason and costs no other file.

        Raises:
            CacheWriteError: The cache cannot be written.
            StorageUnreachableError: The store of a URI does not answer.
        """
        shards = self._shards()
        with _as_data_error(self.root):
            for part in ("pixels", "files"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            writer = ShardWriter(self.folder / "pixels")
            try:
                readings = self._ingest_all(uris, shards, writer)
                writer.commit()
            finally:
                writer.abandon()
            write_known(self.folder / "files", [known for _, known in readings if known is not None])
        return [facts for facts, _ in readings]

    def _ingest_all(
        self, uris: Sequence[str], shards: ShardIndex, writer: ShardWriter
    ) -> list[tuple[ImageFacts, KnownFile | None]]:
        seen: dict[str, ImageFacts] = {}
        readings = read_files(uris, self.limits)
        return [self._take(uri, reading, shards, writer, seen) for uri, reading in zip(uris, readings, strict=True)]

    def _take(
        self, uri: str, reading: Reading, shards: ShardIndex, writer: ShardWriter, seen: dict[str, ImageFacts]
    ) -> tuple[ImageFacts, KnownFile | None]:
        if isinstance(reading, UnreadableFileError):  # may pass, so it is not remembered
            return ImageFacts("", 0, 0, str(reading)), None
        if isinstance(reading, BadImageError):
            facts, now = ImageFacts("", 0, 0, reading.reason), stamp_file(uri)
            return facts, KnownFile(now, facts, self.limits) if now is not None else None
        data, stamp = reading
        sha256 = hashlib.sha256(data)
        if sha256.hexdigest() not in seen:
            seen[sha256.hexdigest()] = self._decode(data, sha256.digest(), shards, writer)
        facts = seen[sha256.hexdigest()]
        return facts, KnownFile(stamp, facts, self.limits)

    def _decode(self, data: bytes, sha256: bytes, shards: ShardIndex, writer: ShardWriter) -> ImageFacts:
        try:
            if (found := shards.find(sha256)) is not None:
                columns, row = found[0].columns, found[1]
                width, height = int(columns.source_widths[row]), int(columns.source_heights[row])
                check_size(width, height, self.limits)
                pixels = found[0].pixels(found[1])
                return ImageFacts(sha256.hex(), width, height, look=None if pixels is None else look_at(pixels))
            decoded = decode_image(data, short_side=self.short_side, limits=self.limits, scale=self.scale)
        except BadImageError as error:
            return ImageFacts(sha256.hex(), error.width, error.height, error.reason)
        look, depth = self._look(decoded, data), depth_text(decoded)
        facts = ImageFacts(sha256.hex(), decoded.width, decoded.height, depth=depth, look=look)
        key = self._key(facts, sha256)
        if key is not None and (key == sha256 or shards.find(key) is None):
            writer.add(key, (decoded.height, decoded.width), decoded.pixels)
        return facts

    def _look(self, decoded: Decoded, data: bytes) -> Look:
        """Return how an image looks; a deep one by its own range, so that other images change nothing about it."""
        if decoded.depth is not None and self.scale is not None:
            decoded = decode_image(data, short_side=self.short_side, limits=self.limits)
        return look_at(decoded.pixels, decoded.mode, decoded.orientation)

    def damaged(self, sha256s: Sequence[str]) -> list[str]:
        """Read images and return those that are not here intact; ingesting their files rebuilds them.

        Args:
            sha256s: Of source files, hexadecimal.
        """
        shards = self._shards()
        return [sha256 for sha256 in sha256s if not any(map(shards.verify, self._keys(sha256)))]

    def reader(self) -> CacheReader:
        """Return a reader for this process; also records this use of the shards for eviction."""
        shards = self._shards()
        shards.mark_used()
        return CacheReader(shards, self.scale)

    def _shards(self) -> ShardIndex:
        shards = shard_index(self.folder / "pixels")
        shards.refresh()
        return shards

    def size_bytes(self) -> int:
        """Return the size of the whole cache on disk, all sizes and decoder versions."""
        return total_bytes(self.root)

    def evict(self, max_bytes: int, in_use: Collection[str] = ()) -> int:
        """Remove the shards least lately used, of any size and version, until the cache is small enough.

        Args:
            max_bytes: Size to come down to; 0: remove nothing.
            in_use: sha256s (hexadecimal) that this run reads; their shards of this size stay, whatever the size.

        Returns:
            Bytes freed.
        """
        file_index(self.folder / "files").merge()
        shards = self._shards()
        broken = [shards.folder / name for name in shards.unreadable]
        keys = (key for sha256 in in_use for key in self._keys(sha256))
        return evict_shards(self.root, max_bytes, shards.paths_of(keys), broken)

    def clear(self) -> int:
        """Remove the whole cache, all sizes and decoder versions; return the bytes freed."""
        return clear_caches(self.root)


class CacheReader:
    """Hand out decoded images as views of mapped shards: no copy, no file opened per image.

    Args:
        shards: This process's index.
        scale: Of the data set's deep pictures; None: there are none.
    """

    def __init__(self, shards: ShardIndex, scale: DepthScale | None = None) -> None:
        self._shards = shards
        self._scale = scale

    def pixels(self, sha256: str) -> npt.NDArray[np.uint8]:
        """Return an image, read-only.

        Args:
            sha256: Of its file, hexadecimal.

        Returns:
            [H, W, 3] RGB.

        Raises:
            MissingPixelsError: It is not here, or damaged.
        """
        keys = cache_keys(sha256, self._scale)
        pixels = self._find(keys)
        if pixels is None:
            self._shards.refresh()
            pixels = self._find(keys)
        if pixels is None:
            raise MissingPixelsError(f"{sha256} is not in the cache, or damaged")
        return pixels

    def _find(self, keys: Sequence[bytes]) -> npt.NDArray[np.uint8] | None:
        return next((pixels for key in keys if (pixels := self._shards.pixels(key)) is not None), None)


def cache_keys(sha256: str, scale: DepthScale | None) -> list[bytes]:
    """Return all that an image's pixels may be kept under; a content is deep or not, so there are never two of them.

    Args:
        sha256: Of its file, hexadecimal.
        scale: Of the data set's deep pictures.
    """
    digest = bytes.fromhex(sha256)
    return [digest, *([] if scale is None else scale.cache_keys(digest))]


@contextlib.contextmanager
def _as_data_error(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CacheWriteError(
            f"The image cache at {root} cannot be written: {why}. "
            "Free space there, give another folder with --cache-dir, or use --cache none."
        ) from None
