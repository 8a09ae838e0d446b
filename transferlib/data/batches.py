"""Steps become batches: gather, augment, label. What a batch holds depends on its rows and (seed, epoch) alone."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from transferlib.data.augment import Augmentation, evaluation_draws, render
from transferlib.data.schedule import Phase, Rows, StepShare
from transferlib.data.source import PixelSource

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Renderer:
    """Turn rows into pixels; picklable, so that any process can.

    Args:
        source: Where pixels come from.
        augmentation: What train images go through.
        image_size: Side S of the result, pixels.
        seed: Of the augmentation's draws.
    """

    source: PixelSource
    augmentation: Augmentation
    image_size: int
    seed: int

    def render(self, phase: Phase, epoch: int, rows: Rows) -> Pixels:
        """Return images as a model sees them: augmented for train, else resized and centre-cropped.

        Args:
            phase: train, val or test.
            epoch: Keys the augmentation.
            rows: Of the image table, int64 [B].

        Returns:
            RGB, uint8 [B, S, S, 3].
        """
        source = self.source.open()
        images = source.pixels(rows)
        sizes = np.array([image.shape[:2] for image in images], dtype=np.int64).reshape(-1, 2)
        if phase == "train":
            draws = self.augmentation.draw(self.seed, epoch, source.images.keys[rows], sizes)
        else:
            draws = evaluation_draws(sizes, self.image_size)
        return render(images, draws, self.image_size)


@dataclass(frozen=True, eq=False)
class Batch:
    """Hold one rank's part of one step. Arrays are read-only: they may be views of memory that others share."""

    share: StepShare
    """Which step, whose part, which images."""
    pixels: Pixels
    """RGB, uint8 [B, S, S, 3]."""
    labels: Rows
    """Class indices, int64 [B]."""

    def digest(self) -> str:
        """Return the sha256 of everything a model could notice: the step, its size, rows, labels and pixels."""
        share = self.share
        head = (share.phase, share.epoch, share.step, share.num_steps, share.step_images, share.offset)
        digest = hashlib.sha256(repr((head, self.pixels.shape, self.labels.shape)).encode())
        for array in (share.rows, self.labels, self.pixels):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return the global step that the ranks' parts, in rank order, make up."""
        first = parts[0].share
        at = first.offset
        for part in parts:
            if (part.share.phase, part.share.epoch, part.share.step, part.share.offset) != (*_step_of(first), at):
                raise ValueError(f"{part.share} does not follow in {first}")
            at += len(part.share.rows)
        rows = np.concatenate([part.share.rows for part in parts])
        return cls(
            replace(first, rows=rows),
            np.concatenate([part.pixels for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )


def _step_of(share: StepShare) -> tuple[Phase, int, int]:
    return share.phase, share.epoch, share.step


class BatchStream(Protocol):
    """Deliver batches for steps; the seam between training and where pixels are made."""

    def open(self, steps: Iterator[StepShare]) -> Generator[Batch, None, None]:
        """Yield exactly one batch a share, in order. Closing the generator ends the work behind it at once."""
        ...


@dataclass(frozen=True)
class LocalStream:
    """Render in this process: for tests, notebooks, and to check other streams against.

    Args:
        renderer: What makes pixels.
        num_threads: 0: render when a batch is asked for; n: render up to n batches ahead, each in a thread of its own.
    """

    renderer: Renderer
    num_threads: int = 0

    def open(self, steps: Iterator[StepShare]) -> Generator[Batch, None, None]:
        """Yield exactly one batch a share, in order."""
        if self.num_threads == 0:
            for share in steps:
                yield self._batch(share)
            return
        pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix="render")
        try:
            ahead: deque[Future[Batch]] = deque()
            for share in steps:
                ahead.append(pool.submit(self._batch, share))
                if len(ahead) > self.num_threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(self, share: StepShare) -> Batch:
        pixels = self.renderer.render(share.phase, share.epoch, share.rows)
        pixels.flags.writeable = False
        labels = self.renderer.source.open().images.labels[share.rows]
        labels.flags.writeable = False
        return Batch(share, pixels, labels)
