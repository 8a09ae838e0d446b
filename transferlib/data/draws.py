"""Augmentation draws as data: for every image of a batch, one row that says exactly what happens to its pixels.

The numbers come from a counter-based generator keyed by (seed, epoch, image key). An image's row therefore depends on
nothing else: not on its neighbours in the batch, the number of workers, block sizes or a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

STEPS = (
    "unchanged",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_saturation",
    "adjust_hue",
    "rgb_to_grayscale",
    "gaussian_blur",
    "erase",
)
"""Operations on pixel values, by torchvision's functional names; a step's code is its index here."""
NUM_VALUES = 7
"""Numbers kept for a step: (factor), (kernel x, kernel y, sigma x, sigma y) or (top, left, height, width, r, g, b)."""

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_AUGMENTATION_STREAM = 0x6175_676D_656E_7400  # "augment": keeps these numbers apart from other uses of (seed, epoch)

Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): x' = a x + b y + c, y' = d x + e y + f, pixel centres at integers."""
Fill = tuple[int, int, int]
Frame = tuple[Affine, int, int, Fill]
"""A rectangle (affine into it, height, width) outside of which the output has the colour `fill`."""


def uniforms(seed: int, epoch: int, key: int, count: int) -> list[float]:
    """Return the uniform numbers in [0, 1) that belong to (seed, epoch, image key).

    Args:
        seed: The trial's seed.
        epoch: From 0.
        key: The image's key, 64 bit.
        count: How many; a longer list begins with the shorter one.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox 4x64-10). The raw words are
    turned into floats here (53 high bits), since numpy promises a stable stream for those only.
    """
    counter = np.array([0, key & _WORD, _AUGMENTATION_STREAM, 0], dtype=np.uint64)
    generator = np.random.Philox(key=np.array([seed & _WORD, epoch & _WORD], dtype=np.uint64), counter=counter)
    numbers: list[float] = ((generator.random_raw(count) >> np.uint64(11)) * 2.0**-53).tolist()
    return numbers


@dataclass(frozen=True)
class PassRow:
    """One image's part in one pass, as plain numbers (see `Pass`)."""

    box: tuple[int, int, int, int]
    matrix: Affine
    size: tuple[int, int]
    softening: tuple[float, float]
    frames: tuple[Frame, ...]
    steps: tuple[tuple[int, tuple[float, ...]], ...]


@dataclass(frozen=True, eq=False)
class Pass:
    """One sampling of each image of a batch, then its steps on pixel values."""

    boxes: NDArray[np.int32]
    """[B, 4] top, left, height, width of the part that can be seen; sampling beyond it repeats its edge. Pixels."""
    matrices: NDArray[np.float64]
    """[B, 2, 3] from output pixel (x, y) to pixel of the box, pixel centres at integers."""
    sizes: NDArray[np.int32]
    """[B, 2] height, width of the output, pixels."""
    softening: NDArray[np.float64]
    """[B, 2] variance along x, y of the low-pass before sampling (antialiasing of a resize), pixels squared."""
    frames: NDArray[np.float64]
    """[B, F, 2, 3] from output pixel to a frame; what lies outside of the frame is filled."""
    frame_sizes: NDArray[np.int32]
    """[B, F, 2] height, width of each frame, pixels."""
    fills: NDArray[np.uint8]
    """[B, F, 3] colour outside of each frame."""
    codes: NDArray[np.int8]
    """[B, P] index into `STEPS`, in order of application."""
    values: NDArray[np.float64]
    """[B, P, 7] numbers of each step, zero where unused."""

    @classmethod
    def stack(cls, rows: Sequence[PassRow]) -> Pass:
        """Return the rows as arrays; all must have as many frames and as many steps."""
        num_images, num_frames, num_steps = len(rows), len(rows[0].frames), len(rows[0].steps)
        framed = (num_images, num_frames)
        values = [[(*v, *(0.0,) * (NUM_VALUES - len(v))) for _, v in row.steps] for row in rows]
        return cls(
            boxes=np.array([row.box for row in rows], np.int32),
            matrices=np.array([row.matrix for row in rows], np.float64).reshape(num_images, 2, 3),
            sizes=np.array([row.size for row in rows], np.int32),
            softening=np.array([row.softening for row in rows], np.float64),
            frames=np.array([[f[0] for f in row.frames] for row in rows], np.float64).reshape(*framed, 2, 3),
            frame_sizes=np.array([[f[1:3] for f in row.frames] for row in rows], np.int32).reshape(*framed, 2),
            fills=np.array([[f[3] for f in row.frames] for row in rows], np.uint8).reshape(*framed, 3),
            codes=np.array([[code for code, _ in row.steps] for row in rows], np.int8).reshape(num_images, num_steps),
            values=np.array(values, np.float64).reshape(num_images, num_steps, NUM_VALUES),
        )


@dataclass(frozen=True, eq=False)
class Draws:
    """What happens to each image of a batch: passes in order, a row an image in each."""

    passes: tuple[Pass, ...]
    """Mostly one; one more for each change from steps on pixel values back to geometry. Empty for no images."""

    def __len__(self) -> int:
        return len(self.passes[0].boxes) if self.passes else 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Draws) or len(self.passes) != len(other.passes):
            return NotImplemented if not isinstance(other, Draws) else False
        pairs = zip(self.passes, other.passes, strict=True)
        return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for a, b in pairs for f in fields(Pass))

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def stack(cls, images: Sequence[Sequence[PassRow]]) -> Draws:
        """Return the draws of a batch from each image's passes."""
        return cls(tuple(Pass.stack(rows) for rows in zip(*images, strict=True)))

    def take(self, rows: Iterable[int]) -> Draws:
        """Return the draws of some images of the batch.

        Args:
            rows: Indices into the batch, in the order wanted.
        """
        index = np.fromiter(rows, np.int64)
        if not len(index):
            return Draws(())
        return Draws(tuple(Pass(**{f.name: getattr(p, f.name)[index] for f in fields(Pass)}) for p in self.passes))
