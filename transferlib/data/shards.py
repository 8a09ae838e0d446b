"""One shard of the decoded cache: an Arrow IPC file of images, written once by one process, read by mapping it."""

from __future__ import annotations

import os
import secrets
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SUFFIX = ".arrow"
TEMPORARY_SUFFIX = ".tmp"
BATCH_BYTES = 32 * 2**20
"""Pixels gathered in memory before they go to the file as one record batch."""

SCHEMA = pa.schema(
    [
        ("sha256", pa.binary(32)),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("source_height", pa.int32()),
        ("source_width", pa.int32()),
        ("crc32", pa.uint32()),
        ("pixels", pa.large_binary()),
    ]
)


@dataclass(frozen=True, eq=False)
class ShardColumns:
    """Hold what a shard says of its images, pixels apart; [N] each."""

    sha256: list[bytes]
    heights: npt.NDArray[np.int32]
    """Of the decoded image, pixels; the others alike."""
    widths: npt.NDArray[np.int32]
    source_heights: npt.NDArray[np.int32]
    source_widths: npt.NDArray[np.int32]
    crc32: npt.NDArray[np.uint32]


def checksum(sha256: bytes, shape: tuple[int, int], source: tuple[int, int], pixels: npt.NDArray[np.uint8]) -> int:
    """Return the CRC-32 over all that an entry says.

    Args:
        sha256: 32 bytes, of the source file, or of that and of the range it was scaled by.
        shape: (height, width) of the pixels.
        source: (height, width) of the source image.
        pixels: Contiguous, any shape.
    """
    head = sha256 + np.array([*shape, *source], dtype="<i4").tobytes()
    return zlib.crc32(pixels.data, zlib.crc32(head))


@dataclass
class ShardWriter:
    """Write one shard: to a temporary name, in batches, and by rename at the end; nothing where nothing was added."""

    folder: Path
    """Must exist."""
    _pending: list[tuple[bytes, tuple[int, int], tuple[int, int], npt.NDArray[np.uint8]]] = field(default_factory=list)
    _pending_bytes: int = 0
    _temporary: Path | None = None
    _file: pa.OSFile | None = None
    _writer: pa.ipc.RecordBatchFileWriter | None = None

    def add(self, sha256: bytes, source: tuple[int, int], pixels: npt.NDArray[np.uint8]) -> None:
        """Add an image.

        Args:
            sha256: 32 bytes.
            source: (height, width) of the source image.
            pixels: [H, W, 3].
        """
        self._pending.append((sha256, (pixels.shape[0], pixels.shape[1]), source, pixels))
        self._pending_bytes += pixels.nbytes
        if self._pending_bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        if self._writer is None:
            self._temporary = self.folder / f"{os.getpid()}-{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
            self._file = pa.OSFile(str(self._temporary), "wb")
            self._writer = pa.ipc.new_file(self._file, SCHEMA)
        sha256, shapes, sources, pixels = zip(*self._pending, strict=True)
        offsets = np.zeros(len(pixels) + 1, dtype=np.int64)
        np.cumsum([array.nbytes for array in pixels], out=offsets[1:])
        body = np.concatenate([array.reshape(-1) for array in pixels])
        column = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(pixels), [None, pa.py_buffer(offsets), pa.py_buffer(body)]
        )
        columns = [
            pa.array(sha256, SCHEMA.field("sha256").type),
            *(pa.array([pair[place] for pair in pairs], pa.int32()) for pairs in (shapes, sources) for place in (0, 1)),
            pa.array([checksum(*entry) for entry in self._pending], pa.uint32()),
            column,
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
        self._pending, self._pending_bytes = [], 0

    def commit(self) -> Path | None:
        """Finish the shard under its final name, on disk for good; None where nothing was added."""
        self._flush()
        if self._writer is None or self._temporary is None or self._file is None:
            return None
        self._writer.close()
        self._file.close()
        return publish(self._temporary)

    def abandon(self) -> None:
        """Remove what was written so far; harmless after `commit`."""
        if self._file is not None:
            self._file.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)


def publish(temporary: Path) -> Path:
    """Give a finished temporary file its final name in the same folder.

    The name begins with the file's modification time, so names sort by age, and a file whose time is another than its
    name says was touched by someone else (see `is_suspect`).
    """
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    now = time.time_ns()  # finer than the stamps of a file system, so that of two files the later one sorts later
    os.utime(temporary, ns=(now, now))
    kept = temporary.stat().st_mtime_ns  # file systems keep fewer digits than a clock gives
    final = temporary.with_name(f"{kept:020d}-{temporary.stem}{SUFFIX}")
    os.rename(temporary, final)
    return final


def is_suspect(path: Path) -> bool:
    """Say whether a published file was written to after it was published."""
    return path.stat().st_mtime_ns != int(path.name.split("-", 1)[0])


class MappedShard:
    """Read a shard by mapping it: small columns as arrays, pixels as views of the file.

    Args:
        path: Of a published shard.

    Raises:
        pa.ArrowInvalid: Truncated, or no shard.
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Closing drops the descriptor; the mapping lives as long as a buffer of it does, so that thousands of shards
        # can be held without reaching the limit on open files.
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            if reader.schema != SCHEMA:
                raise pa.ArrowInvalid(f"{path} has another layout")
            batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        table = pa.Table.from_batches(batches, SCHEMA)
        names = ("height", "width", "source_height", "source_width", "crc32")
        self.columns = ShardColumns(table["sha256"].to_pylist(), *(table[name].to_numpy() for name in names))
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._bodies = [_body(batch) for batch in batches]

    def __len__(self) -> int:
        return len(self.columns.sha256)

    def pixels(self, row: int) -> npt.NDArray[np.uint8] | None:
        """Return an image as a read-only view of the file, unverified.

        Args:
            row: Of this shard.

        Returns:
            [H, W, 3]; None where the shard contradicts itself.
        """
        batch = int(np.searchsorted(self._starts, row, side="right")) - 1
        offsets, body = self._bodies[batch]
        place = row - int(self._starts[batch])
        start, end = int(offsets[place]), int(offsets[place + 1])
        height, width = int(self.columns.heights[row]), int(self.columns.widths[row])
        if not (0 <= start <= end <= body.size and end - start == height * width * 3 and height > 0 and width > 0):
            return None
        return body[start:end].reshape(height, width, 3)

    def is_intact(self, row: int) -> bool:
        """Say whether an entry is what was written, by its checksum."""
        pixels = self.pixels(row)
        if pixels is None:
            return False
        of = self.columns
        source = (int(of.source_heights[row]), int(of.source_widths[row]))
        found = checksum(of.sha256[row], (pixels.shape[0], pixels.shape[1]), source, pixels)
        return found == int(of.crc32[row])


def _body(batch: pa.RecordBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    _, offsets, body = batch.column("pixels").buffers()
    starts = np.frombuffer(offsets, dtype=np.int64, count=batch.num_rows + 1)
    return starts, np.frombuffer(body, dtype=np.uint8)
