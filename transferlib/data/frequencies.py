"""A picture as a few numbers: its low spatial frequencies, those of its windows, and what a turn makes of them.

All numbers are whole, and so small that float32 (float64 in places) adds them without rounding: no product depends on
how the work is cut into blocks, on the order of sums or on the number of threads. Only the length of a vector is a sum
that is rounded, in float64 and along one row, whatever rows lie beside it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from transferlib.data.looks import SIDE

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

CUTS = ((0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.05, 0.05))
"""Shares of a side that a window leaves out at its start and end."""
WINDOWS = tuple((down, across) for down in CUTS for across in CUTS)
"""What is cut vertically and horizontally; the first is the whole."""
ORIENTATIONS = tuple(
    (swap, down, across) for swap in (False, True) for down in (False, True) for across in (False, True)
)
"""Whether rows and columns are swapped, and then whether it is flipped vertically and horizontally."""

LENGTH = 4_000
"""Of a vector of whole numbers: less than the root of 2^24, below which float32 holds every whole number."""
_ORDER = 7
"""Highest frequency that is looked at: half-waves down plus half-waves across."""
_FINENESS = 4_096
"""Steps of 1 in a matrix of whole numbers: its products with lines of grey values stay below 2^24."""
_MOST_PRODUCTS = 1 << 18
"""Multiplications that one matrix product is given: OpenBLAS takes one thread for so few, and threads that wait for one
another cost more than they bring on a machine with other work."""


def window_matrices(num_frequencies: int) -> Floats:
    """Return for each of CUTS the matrix from a line of SIDE pixels to the frequencies of its window, [4, K, SIDE].

    Args:
        num_frequencies: K, the first being the mean.
    """
    places = np.arange(SIDE) + 0.5
    waves = np.cos(np.pi * np.arange(num_frequencies)[:, None] * places / SIDE) * np.sqrt(2 / SIDE)
    return np.stack([waves @ _resampling(*cut) for cut in CUTS]).astype(np.float32)


def _resampling(start: float, end: float) -> npt.NDArray[np.float64]:
    """Return the matrix that enlarges a window of a line to the whole line, linearly."""
    at = np.clip((start + (1 - start - end) * (np.arange(SIDE) + 0.5) / SIDE) * SIDE - 0.5, 0, SIDE - 1)
    left = np.minimum(at.astype(np.int64), SIDE - 2)
    rows, matrix = np.arange(SIDE), np.zeros((SIDE, SIDE))
    matrix[rows, left] = 1 - (at - left)
    matrix[rows, left + 1] += at - left
    return matrix


_MATRIX = np.rint(window_matrices(_ORDER + 1) * _FINENESS).reshape(-1, SIDE)
"""[cuts x frequencies, SIDE], whole numbers."""
_USED = [(i, j) for i in range(_ORDER + 1) for j in range(_ORDER + 1) if 0 < i + j <= _ORDER]
"""The F frequencies that are looked at, down and across."""
_DOWN, _ACROSS = np.array(_USED).T
_PLACES = np.array(
    [
        ((down * (_ORDER + 1) + i) * len(CUTS) + across) * (_ORDER + 1) + j
        for down in range(len(CUTS))
        for across in range(len(CUTS))
        for i, j in _USED
    ]
)
"""[windows x F], where `_windows` finds them."""
_WEIGHTS = np.hypot(_DOWN, _ACROSS) ** 0.5
"""Photos have the less of a frequency the higher it is."""
_FROM, _SIGNS = (
    np.array(columns)
    for columns in zip(
        *(
            ([_USED.index((j, i) if swap else (i, j)) for i, j in _USED], (-1.0) ** (_DOWN * down + _ACROSS * across))
            for swap, down, across in ORIENTATIONS
        ),
        strict=True,
    )
)
"""[orientations, F], where each frequency of a turned picture comes from, and its sign."""


def windows_of(thumbnails: npt.NDArray[np.uint8], number: int = len(WINDOWS)) -> Floats:
    """Return the weighted low frequencies of the first windows of pictures, [N, windows, F]; 0 where nothing is seen.

    Args:
        thumbnails: [N, SIDE, SIDE] grey.
        number: Of windows.
    """
    return whole_numbers(_responses(thumbnails, number), _LEAST_NORM)


def _responses(thumbnails: npt.NDArray[np.uint8], number: int) -> npt.NDArray[np.float64]:
    across = np.matmul(thumbnails.astype(np.float32), _MATRIX.T.astype(np.float32))
    both = np.matmul(_MATRIX, across.astype(np.float64)).reshape(len(thumbnails), -1)
    found = both[:, _PLACES[: number * len(_USED)]].reshape(len(thumbnails), number, -1)
    return np.asarray(found * _WEIGHTS, np.float64)


def _norms(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.asarray(np.sqrt(np.einsum("...f,...f->...", vectors, vectors)))


_LEAST_NORM = 2.0 * float(_norms(_responses(np.full((1, SIDE, SIDE), 255, np.uint8), len(WINDOWS))).max())
"""Of what a window shows: twice what the rounding of the matrix makes of a white picture, whose frequencies are 0."""


def whole_numbers(vectors: npt.NDArray[np.floating], least_norm: float = 1e-6) -> Floats:
    """Return vectors of LENGTH, rounded to whole numbers.

    Args:
        vectors: [..., F].
        least_norm: Shorter ones become 0.
    """
    norms = _norms(vectors)[..., None]
    scales = np.where(norms < least_norm, 0.0, LENGTH / np.maximum(norms, least_norm))
    return np.asarray(np.rint(vectors * scales), np.float32)


def turned(vectors: Floats, orientations: Ints) -> Floats:
    """Return pictures in an orientation each, [N, F].

    Args:
        vectors: [N, F].
        orientations: [N], index into ORIENTATIONS.
    """
    return np.asarray(np.take_along_axis(vectors, _FROM[orientations], axis=1) * _SIGNS[orientations], np.float32)


def products_of(vectors: Floats, columns: Floats) -> Floats:
    """Return the products of all with all, [N, M].

    Args:
        vectors: [N, F].
        columns: [F, M].
    """
    size = max(1, _MOST_PRODUCTS // columns.size)
    num_tiles = len(vectors) // size
    found: Floats = np.empty((len(vectors), columns.shape[1]), np.float32)
    edge = num_tiles * size
    tiles = vectors[:edge].reshape(num_tiles, size, len(columns))
    np.matmul(tiles, columns, out=found[:edge].reshape(num_tiles, size, columns.shape[1]))
    np.matmul(vectors[edge:], columns, out=found[edge:])
    return found
