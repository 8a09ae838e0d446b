"""What is known of files that were read before: from path, size and modification time to facts, over runs."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from transferlib.data.decode import Limits
from transferlib.data.facts import FileStamp, ImageFacts
from transferlib.data.looks import NOT_LOOKED_AT, Look
from transferlib.data.shards import SUFFIX, TEMPORARY_SUFFIX, publish

MOST_FILES = 64
"""Index files past which they are merged into one."""

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("reason", pa.string()),
        ("depth", pa.string()),
        ("max_pixels", pa.int64()),
        ("max_file_bytes", pa.int64()),
        ("thumbnail", pa.binary()),
        ("sharpness", pa.float64()),
        ("mode", pa.string()),
        ("orientation", pa.int8()),
        ("colours", pa.binary()),
    ]
)


class KnownFile(NamedTuple):
    """Hold one reading of one file."""

    stamp: FileStamp
    facts: ImageFacts
    limits: Limits
    """Under which it was judged."""


class FileIndex:
    """Remember files over runs; a later reading of a path wins over an earlier one.

    Args:
        folder: Of index files; may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: set[str] = set()
        self._known: dict[str, KnownFile] = {}
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Take up index files that have appeared."""
        with self._lock:
            for name in sorted(path.name for path in self.folder.glob(f"*{SUFFIX}")):
                if name in self._read:
                    continue
                self._read.add(name)
                self._known.update((known.stamp.uri, known) for known in _read(self.folder / name))

    def find(self, stamp: FileStamp, limits: Limits) -> ImageFacts | None:
        """Return what is known of a file in this state, or None.

        Args:
            stamp: The file's state now.
            limits: To judge by: what other limits refused or let through is judged anew where it may differ.
        """
        known = self._known.get(stamp.uri)
        if known is None or known.stamp != stamp:
            return None
        if known.limits == limits:
            return known.facts
        pixels = known.facts.width * known.facts.height
        is_within = pixels <= limits.max_pixels and stamp.size <= limits.max_file_bytes
        return known.facts if known.facts.is_good and is_within else None

    def merge(self) -> None:
        """Put many index files into one; readers see the old ones or the new one."""
        names = sorted(path.name for path in self.folder.glob(f"*{SUFFIX}"))
        if len(names) <= MOST_FILES:
            return
        merged = {known.stamp.uri: known for name in names for known in _read(self.folder / name)}
        write_known(self.folder, list(merged.values()))
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


def write_known(folder: Path, readings: Sequence[KnownFile]) -> None:
    """Add an index file.

    Args:
        folder: Must exist.
        readings: None: no file.
    """
    if not readings:
        return
    rows = [
        (
            stamp.uri,
            stamp.size,
            stamp.mtime_ns,
            facts.sha256,
            facts.width,
            facts.height,
            facts.reason,
            facts.depth,
            limits.max_pixels,
            limits.max_file_bytes,
            *(facts.look or NOT_LOOKED_AT),
        )
        for stamp, facts, limits in readings
    ]
    columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
    temporary = folder / f"{os.getpid()}-{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
    publish(temporary)


def _read(path: Path) -> list[KnownFile]:
    """Read an index file; a damaged one or one that was merged away says nothing, so its files are read again."""
    try:
        with pa.OSFile(str(path), "rb") as file:
            table = pa.ipc.open_file(file).read_all()
        if table.schema != SCHEMA:
            return []
        rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
        return [
            KnownFile(
                FileStamp(uri, size, mtime),
                ImageFacts(sha256, width, height, reason, depth, None if look[0] is None else Look(*look)),
                Limits(pixels, of_file),
            )
            for uri, size, mtime, sha256, width, height, reason, depth, pixels, of_file, *look in rows
        ]
    except (pa.ArrowException, OSError, ValueError):
        return []


@cache
def file_index(folder: Path) -> FileIndex:
    """Return this process's index of a folder."""
    return FileIndex(folder)
