"""Batches through Ray Data: a stream of indices goes in, blocks of rendered images come out, in order.

The index of a training (phase, epoch, row: every epoch's train and validation steps behind one another) is cut into
few large blocks, since Ray Data costs by the block. One task renders one block; the consumer cuts blocks into steps
without copying. Each rank streams its own share, so nothing needs to be split, shuffled or repeated by Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from transferlib.data.batches import Batch, Pixels, Renderer
from transferlib.data.cache import DecodedCache
from transferlib.data.decode import Limits
from transferlib.data.facts import ImageFacts, inspect_file
from transferlib.data.schedule import Rows, StepShare
from transferlib.names import SPLITS
from transferlib.on_ray.pump import Pump

MIB = 1 << 20
_SEGMENT_ROWS = (8_192, 65_536)
_FIRST_BLOCK_ROWS = 32
_MAX_BLOCK_ROWS = 512
_INGEST_FILES_PER_BLOCK = 64


@dataclass(frozen=True)
class RayStream:
    """Deliver batches that Ray Data tasks render.

    Args:
        renderer: What makes pixels.
        cpus: Logical CPUs that this stream's tasks may take together; may be a fraction.
        rows_per_block: Images a task renders; None: as many as fit a twelfth of `memory_bytes`, at most 512.
        memory_bytes: Object store that this stream's blocks may take, whatever the number of images.
    """

    renderer: Renderer
    cpus: float = 1.0
    rows_per_block: int | None = None
    memory_bytes: int = 384 * MIB

    def open(self, steps: Iterator[StepShare]) -> Generator[Batch, None, None]:
        """Start rendering at once and yield exactly one batch a share, in order.

        Closing the generator, or dropping it, ends the tasks behind it.
        """
        pump: Pump[list[StepShare] | pa.Table] = Pump(lambda: self._segments(steps))
        batches = self._cut(pump)
        next(batches)  # into its `try`, so that close() ends the pump even before the first batch was asked for
        return batches  # type: ignore[return-value]

    def _segments(self, steps: Iterator[StepShare]) -> Generator[list[StepShare] | pa.Table, None, None]:
        """Yield the shares of each segment, then its rendered blocks; one run of Ray Data a segment.

        A segment bounds what Ray Data must know beforehand, so that memory does not grow with epochs or images. The
        first one is small, since nothing starts before a segment's index is stored.
        """
        sizes = _SEGMENT_ROWS
        while segment := _take(steps, sizes[0]):
            sizes = sizes[1:] or sizes
            yield segment
            index = _index_table(segment)
            if index.num_rows:
                render = partial(render_block, renderer=self.renderer)
                yield from run_blocks(self._blocks(index), render, self.cpus, self.memory_bytes)

    def _blocks(self, index: pa.Table) -> list[pa.Table]:
        """Cut an index: blocks double up to the full size, so that the first step can start early."""
        full = self.rows_per_block or self._rows_that_fit()
        size, at, blocks = min(full, _FIRST_BLOCK_ROWS), 0, []
        while at < index.num_rows:
            blocks.append(index.slice(at, size))
            at, size = at + size, min(full, size * 2)
        return blocks

    def _rows_that_fit(self) -> int:
        return max(1, min(_MAX_BLOCK_ROWS, self.memory_bytes // 12 // (3 * self.renderer.image_size**2)))

    def _cut(self, pump: Pump[list[StepShare] | pa.Table]) -> Generator[Batch | None, None, None]:
        size = self.renderer.image_size
        try:
            yield None
            labels = self.renderer.source.open().images.labels
            items = iter(pump)
            for segment in items:
                rendered = _RenderedRows(items, size)
                for share in segment:
                    batch_labels = labels[share.rows]
                    batch_labels.flags.writeable = False
                    yield Batch(share, rendered.take(share), batch_labels)
        finally:
            pump.close()


class _RenderedRows:
    """Cut the blocks of one segment into steps."""

    def __init__(self, items: Iterator[Any], image_size: int) -> None:
        self._items = items
        self._pixels: Pixels = np.empty((0, image_size, image_size, 3), np.uint8)
        self._rows: Rows = np.empty(0, np.int64)
        self._at = 0

    def take(self, share: StepShare) -> Pixels:
        """Return the next share's pixels; a view where one block holds them all."""
        parts: list[Pixels] = []
        wanted = len(share.rows)
        while True:
            end = min(self._at + wanted, len(self._rows))
            # Ray Data promises the order; a batch under the wrong labels would be silent, so it is looked at.
            done = len(share.rows) - wanted
            if not np.array_equal(self._rows[self._at : end], share.rows[done : done + end - self._at]):
                raise RuntimeError(f"Ray Data delivered other rows than asked for at {share}")
            parts.append(self._pixels[self._at : end])
            wanted -= end - self._at
            self._at = end
            if not wanted:
                break
            self._load(next(self._items))
        parts = [part for part in parts if len(part)] or parts[:1]
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
        pixels.flags.writeable = False
        return pixels

    def _load(self, block: pa.Table) -> None:
        self._rows = block.column("row").to_numpy()
        column = block.column("pixels").combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=True)
        self._pixels = flat.reshape(len(self._rows), *self._pixels.shape[1:])
        self._at = 0


def render_block(index: pa.Table, renderer: Renderer) -> pa.Table:
    """Render a block of an index; runs in Ray Data tasks.

    Args:
        index: Columns phase (index into `names.SPLITS`), epoch, row.
        renderer: What makes pixels; its source stays open in the process between tasks.

    Returns:
        Columns row and pixels (lists of S x S x 3 uint8).
    """
    phases, epochs, rows = (index.column(name).to_numpy() for name in ("phase", "epoch", "row"))
    edges = np.flatnonzero((np.diff(phases) != 0) | (np.diff(epochs) != 0)) + 1
    runs = zip([0, *edges], [*edges, len(rows)], strict=True)
    parts = [renderer.render(SPLITS[phases[a]], int(epochs[a]), rows[a:b]) for a, b in runs]
    pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), pixels[0].size)
    return pa.table({"row": index.column("row"), "pixels": lists})


def ingest_images(
    cache: DecodedCache | None,
    uris: Sequence[str],
    limits: Limits,
    cpus: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[ImageFacts]:
    """Read and decode images once, in Ray Data tasks; only facts come back, pixels go to the cache.

    Args:
        cache: Where decoded images are kept; None: look at each file and keep nothing.
        uris: Absolute paths.
        limits: What is refused before decoding.
        cpus: Logical CPUs that the tasks may take together.
        on_progress: Called with (files done, files in all) as blocks come in.

    Returns:
        The facts of each file, in the order given.
    """
    facts = list(cache.known(uris)) if cache else [None] * len(uris)
    missing = [i for i, fact in enumerate(facts) if fact is None]
    blocks = [
        pa.table({"uri": [uris[i] for i in missing[at : at + _INGEST_FILES_PER_BLOCK]]})
        for at in range(0, len(missing), _INGEST_FILES_PER_BLOCK)
    ]
    done = len(uris) - len(missing)
    slots = iter(missing)
    if blocks:
        for block in run_blocks(blocks, partial(ingest_block, cache=cache, limits=limits), cpus, 64 * MIB):
            for row in block.to_pylist():
                facts[next(slots)] = ImageFacts(**row)
            done += block.num_rows
            if on_progress:
                on_progress(done, len(uris))
    complete = [fact for fact in facts if fact is not None]
    if len(complete) != len(uris):
        raise RuntimeError(f"Ray Data delivered facts of {len(complete)} of {len(uris)} files")
    return complete


def ingest_block(block: pa.Table, cache: DecodedCache | None, limits: Limits) -> pa.Table:
    """Read a block of files; runs in Ray Data tasks.

    Args:
        block: Column uri.
        cache: As in `ingest_images`.
        limits: As in `ingest_images`.

    Returns:
        Columns sha256, width, height, reason.
    """
    uris = block.column("uri").to_pylist()
    facts = cache.ingest(uris) if cache else [inspect_file(uri, limits) for uri in uris]
    return pa.Table.from_pylist(
        [{"sha256": f.sha256, "width": f.width, "height": f.height, "reason": f.reason} for f in facts]
    )
