"""Batches through Ray Data: a stream of indices goes in, blocks of rendered images come out, in order.

The index of a training (phase, epoch, row: every epoch's train and validation steps behind one another) is cut into
few large blocks, since Ray Data costs by the block. One task renders one block; the consumer cuts blocks into steps
without copying. Each rank streams its own share, so nothing needs to be split, shuffled or repeated by Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from transferlib.data.batches import Batch, Pixels, Renderer
from transferlib.data.cache import DecodedCache
from transferlib.data.decode import Limits
from transferlib.data.facts import ImageFacts, inspect_files
from transferlib.data.looks import NOT_LOOKED_AT, Look
from transferlib.data.schedule import PHASES, Rows, StepShare
from transferlib.errors import StoppedError
from transferlib.on_ray.lanes import run_lanes
from transferlib.on_ray.mirroring import fetch_manifest
from transferlib.on_ray.pump import Pump

MIB = 1 << 20
_SEGMENT_ROWS = (8_192, 65_536)
"""Rows of a stream's first run of Ray Data and of each later one."""
_FIRST_BLOCK_ROWS = 32
_MAX_BLOCK_ROWS = 512
_BLOCKS_IN_MEMORY = (12, 6)
"""Blocks that a stream's memory must hold: at least, and for each lane (rendered, waiting, with the consumer)."""
_FILES_PER_BLOCK = 64
STARVED_S = 3.0
"""A batch that takes longer is not waited for once the run is stopped: nothing may be making it."""
_FACT_COLUMNS = ("sha256", "width", "height", "reason", "depth")

Segment = list[StepShare]


@dataclass(frozen=True)
class RayStream:
    """Deliver batches that Ray Data tasks render.

    Args:
        renderer: What makes pixels.
        lanes: Tasks that may render at the same time, on this node, within what the trial has reserved.
        rows_per_block: Images a task renders; None: what `memory_bytes` allows, at most 512.
        memory_bytes: Object store that this stream may take, whatever the number of images and epochs.
        stop_flag: A file that ends the waiting for a batch; None: wait as long as it takes.
    """

    renderer: Renderer
    lanes: int = 1
    rows_per_block: int | None = None
    memory_bytes: int = 384 * MIB
    stop_flag: Path | None = None

    def open(self, steps: Iterator[StepShare]) -> Generator[Batch, None, None]:
        """Start rendering at once and yield exactly one batch a share, in order.

        Closing the generator, or letting go of it, ends the tasks behind it.

        Args:
            steps: Read in another thread, somewhat ahead.

        Raises:
            DataError: An image is gone or changed.
            StoppedError: The run was stopped while nothing came.
            ray.exceptions.RayError: Ray could not run the tasks.
        """
        batches = self._batches(Pump(partial(self._segments, steps), look=self._refuse_to_wait))
        next(batches)  # into its `try`, so that close() ends the pump even before the first batch was asked for
        return cast("Generator[Batch, None, None]", batches)

    def _batches(self, pump: Pump[Segment | pa.Table]) -> Generator[Batch | None, None, None]:
        try:
            yield None
            labels = self.renderer.source.open().images.labels
            items = iter(pump)
            for segment in items:
                rendered = _RenderedRows(items, self.renderer.image_size)
                for share in segment:
                    batch_labels = labels[share.rows]
                    batch_labels.flags.writeable = False
                    yield Batch(share, rendered.take(share), batch_labels)
        finally:
            pump.close()

    def _refuse_to_wait(self, seconds: float) -> None:
        if self.stop_flag is not None and seconds > STARVED_S and self.stop_flag.exists():
            raise StoppedError(f"Stopped after {seconds:.0f} s without a batch; it goes on from its last checkpoint.")

    def _segments(self, steps: Iterator[StepShare]) -> Generator[Segment | pa.Table, None, None]:
        """Yield the shares of each segment, then its rendered blocks; a segment is one run of Ray Data.

        Segments bound what Ray Data must know beforehand, so that memory does not grow with epochs or images. The first
        one is small: nothing starts before a segment's index is stored.
        """
        size, next_size = _SEGMENT_ROWS
        render = partial(render_block, renderer=self.renderer)
        while segment := _take(steps, size):
            size = next_size
            yield segment
            index = _index(segment)
            if index.num_rows:
                yield from run_lanes(self._blocks(index), render, self.lanes, self.memory_bytes, is_reserved=True)

    def _blocks(self, index: pa.Table) -> list[pa.Table]:
        """Cut an index; blocks double up to the full size, so that the first step can start early."""
        image_bytes = 3 * self.renderer.image_size**2
        at_least, for_each = _BLOCKS_IN_MEMORY
        num_held = max(at_least, for_each * self.lanes)
        fitting = max(1, min(_MAX_BLOCK_ROWS, self.memory_bytes // num_held // image_bytes))
        full = self.rows_per_block or fitting
        size, at, blocks = min(full, _FIRST_BLOCK_ROWS), 0, []
        while at < index.num_rows:
            blocks.append(index.slice(at, size))
            at, size = at + size, min(full, size * 2)
        return blocks


class _RenderedRows:
    """Cut the rendered blocks of one segment into steps.

    Args:
        blocks: Tables as `render_block` makes them.
        image_size: Side of the images, pixels.
    """

    def __init__(self, blocks: Iterator[pa.Table], image_size: int) -> None:
        self._blocks = blocks
        self._pixels: Pixels = np.empty((0, image_size, image_size, 3), np.uint8)
        self._rows: Rows = np.empty(0, np.int64)

    def take(self, share: StepShare) -> Pixels:
        """Return the next share's pixels, read-only; a view where one block holds them all."""
        parts = [self._take_from_block(share.rows)]
        taken = len(parts[0])
        while taken < len(share.rows):
            self._load(next(self._blocks))
            parts.append(self._take_from_block(share.rows[taken:]))
            taken += len(parts[-1])
        parts = [part for part in parts if len(part)] or parts[:1]
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
        pixels.flags.writeable = False
        return pixels

    def _take_from_block(self, wanted: Rows) -> Pixels:
        count = min(len(wanted), len(self._rows))
        # The order is promised; a batch under the wrong labels would be silent, so it is checked all the same.
        if not np.array_equal(self._rows[:count], wanted[:count]):
            raise RuntimeError("Ray Data delivered rows in another order than asked for.")
        pixels = self._pixels[:count]
        self._rows, self._pixels = self._rows[count:], self._pixels[count:]
        return pixels

    def _load(self, block: pa.Table) -> None:
        self._rows = block.column("row").to_numpy()
        flat = block.column("pixels").combine_chunks().flatten().to_numpy(zero_copy_only=True)
        self._pixels = flat.reshape(len(self._rows), *self._pixels.shape[1:])


def _take(steps: Iterator[StepShare], num_rows: int) -> Segment:
    """Take shares until they have so many rows, or as many steps (some may be empty)."""
    segment: Segment = []
    taken = 0
    while max(taken, len(segment)) < num_rows and (share := next(steps, None)) is not None:
        segment.append(share)
        taken += len(share.rows)
    return segment


def _index(segment: Segment) -> pa.Table:
    sizes = [len(share.rows) for share in segment]
    phases = np.repeat(np.array([PHASES.index(share.phase) for share in segment], np.int8), sizes)
    epochs = np.repeat(np.array([share.epoch for share in segment], np.int32), sizes)
    return pa.table({"phase": phases, "epoch": epochs, "row": np.concatenate([share.rows for share in segment])})


def render_block(index: pa.Table, renderer: Renderer) -> pa.Table:
    """Render a block of an index; runs in Ray Data tasks.

    Args:
        index: Columns phase (index into PHASES), epoch, row.
        renderer: What makes pixels; its source stays open in the process between tasks.

    Returns:
        Columns row and pixels (lists of S x S x 3 uint8).
    """
    fetch_manifest(Path(renderer.source.manifest))
    phases, epochs, rows = (index.column(name).to_numpy() for name in ("phase", "epoch", "row"))
    edges = np.flatnonzero((np.diff(phases) != 0) | (np.diff(epochs) != 0)) + 1
    runs = zip([0, *edges], [*edges, len(rows)], strict=True)
    parts = [renderer.render(PHASES[phases[a]], int(epochs[a]), rows[a:b]) for a, b in runs]
    pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), pixels[0].size)
    return pa.table({"row": index.column("row"), "pixels": lists})


def ingest_images(
    cache: DecodedCache | None,
    uris: Sequence[str],
    limits: Limits,
    lanes: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[ImageFacts]:
    """Read and decode images once, in Ray Data tasks; only facts come back, pixels go to the cache.

    Args:
        cache: Where decoded images are kept; None: look at each file and keep nothing.
        uris: Absolute paths.
        limits: What is refused before decoding.
        lanes: Tasks that may run at the same time, a CPU each, wherever one is free.
        on_progress: Called with (files done, files in all) as blocks come in.

    Returns:
        The facts of each file, in the order given.

    Raises:
        DataError: The cache cannot be written.
    """
    facts: dict[int, ImageFacts] = {}
    if cache is not None:
        facts = {i: known for i, known in enumerate(cache.known(uris)) if known is not None}
    missing = [i for i in range(len(uris)) if i not in facts]
    if missing:
        starts = range(0, len(missing), _FILES_PER_BLOCK)
        blocks = [pa.table({"uri": [uris[i] for i in missing[at : at + _FILES_PER_BLOCK]]}) for at in starts]
        read = run_lanes(blocks, partial(ingest_block, cache=cache, limits=limits), lanes, 64 * MIB)
        places = iter(missing)
        for block in read:
            facts |= {next(places): _fact(row) for row in block.to_pylist()}
            if on_progress is not None:
                on_progress(len(facts), len(uris))
    return [facts[i] for i in range(len(uris))]


def ingest_block(block: pa.Table, cache: DecodedCache | None, limits: Limits) -> pa.Table:
    """Read a block of files; runs in Ray Data tasks.

    Args:
        block: Column uri.
        cache: As in `ingest_images`.
        limits: As in `ingest_images`.

    Returns:
        Columns sha256, width, height, reason, depth, and those of a look.
    """
    uris = block.column("uri").to_pylist()
    facts = inspect_files(uris, limits) if cache is None else cache.ingest(uris)
    plain = {name: [getattr(fact, name) for fact in facts] for name in _FACT_COLUMNS}
    looks = zip(*(fact.look or NOT_LOOKED_AT for fact in facts), strict=True)
    types = (pa.binary(), pa.float64(), pa.string(), pa.int8(), pa.binary())
    columns = zip(Look._fields, looks, types, strict=True)
    return pa.table({**plain, **{name: pa.array(values, of) for name, values, of in columns}})


def _fact(row: dict[str, Any]) -> ImageFacts:
    look = [row[name] for name in Look._fields]
    return ImageFacts(**{name: row[name] for name in _FACT_COLUMNS}, look=None if look[0] is None else Look(*look))
