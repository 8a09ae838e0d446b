"""Which pairs of small pictures may show the same: a search that looks at a few numbers of each, whatever its turn.

A picture's low spatial frequencies (a cosine transform) change sign and swap places when it is mirrored or turned, so
the sorted magnitudes of each frequency and its transpose are the same for all eight orientations. A copy that was
cropped by up to a tenth looks like one of the *windows* of the whole; each picture is asked for through all of them.
From some thousands of pictures on, only what lies near in a coarse partition of the numbers is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

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

_ORDER = 7
"""Highest frequency that is looked at: half-waves down plus half-waves across."""
_LEAST_ALIKE, _LEAST_ALIKE_TURNED = 0.60, 0.86
"""Cosines below which a pair is dropped: of the sorted magnitudes, and of the frequencies in the best orientation."""
_MOST_PAIRS = 16
"""Pairs of a picture, the most alike, that are looked at: where thousands show one background, all are alike."""
_PARTS_FROM = 2_000
"""Pictures from which the coarse partition is used."""
_PROBED = 8
_MOST_PRODUCTS = 1 << 18
"""Multiplications that one matrix product is given: OpenBLAS takes one thread for so few, and threads that wait for one
another cost more than they bring on a machine with other work."""
_CHUNK = 16_384
_STEPS = 1 << 14
"""Steps in which likenesses are told apart."""


class Pairs(NamedTuple):
    """Name P pairs of pictures: a window of the first looks like the second in an orientation."""

    first: Ints
    """[P], rows."""
    second: Ints
    """[P], rows."""
    window: Ints
    """[P], index into WINDOWS."""
    orientation: Ints
    """[P], index into ORIENTATIONS: how to turn the second."""

    def where(self, kept: npt.NDArray[np.bool_] | Ints) -> Pairs:
        """Return some of the pairs."""
        return Pairs(*(column[kept] for column in self))


def find_lookalikes(thumbnails: npt.NDArray[np.uint8]) -> Pairs:
    """Return the pairs that may show the same, each once.

    Args:
        thumbnails: [N, SIDE, SIDE] grey.
    """
    if len(thumbnails) < 2:
        none = np.zeros(0, np.int64)
        return Pairs(none, none, none, none)
    found = np.concatenate([np.zeros(0, np.int64), *_near(thumbnails)])
    return _turned(thumbnails, *_best_windows(found, len(thumbnails)))


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


_MATRICES = window_matrices(_ORDER + 1)
_DOWN, _ACROSS = np.meshgrid(np.arange(_ORDER + 1), np.arange(_ORDER + 1), indexing="ij")
_WEIGHTS = (np.hypot(_DOWN, _ACROSS) ** 0.5 * ((_DOWN + _ACROSS > 0) & (_DOWN + _ACROSS <= _ORDER))).astype(np.float32)
"""Photos have the less of a frequency the higher it is."""
_SIGNS = np.stack(
    [((-1.0) ** (_DOWN * down + _ACROSS * across)).ravel() for down in (0, 1) for across in (0, 1)]
).astype(np.float32)
"""[4, frequencies], what a flip does to them."""
_UPPER = [(i, j) for i in range(_ORDER + 1) for j in range(i, _ORDER + 1) if 0 < i + j <= _ORDER]
# fmt: off
_MEAN = np.array((
    0.261, 0.282, 0.234, 0.234, 0.207, 0.202, 0.187, 0.135, 0.175, 0.162, 0.158, 0.150,
    0.145, 0.165, 0.171, 0.172, 0.158, 0.127, 0.155, 0.149, 0.173, 0.134, 0.137, 0.118,
    0.119, 0.108, 0.106, 0.098, 0.092, 0.089, 0.086, 0.104, 0.106, 0.095, 0.096,
), np.float32)
# fmt: on
"""Of the magnitudes of 12,396 photos; fixed, so that which pairs are found does not depend on the other images."""


def _frequencies(thumbnails: npt.NDArray[np.uint8], window: int) -> Floats:
    """Return the weighted low frequencies of a window, [N, _ORDER + 1, _ORDER + 1]."""
    down, across = divmod(window, len(CUTS))
    found: Floats = np.empty((len(thumbnails), _ORDER + 1, _ORDER + 1), np.float32)
    for start in range(0, len(thumbnails), _CHUNK):
        part = thumbnails[start : start + _CHUNK].astype(np.float32)
        found[start : start + _CHUNK] = _MATRICES[down] @ part @ _MATRICES[across].T
    found *= _WEIGHTS
    return found


def _sorted_magnitudes(frequencies: Floats) -> Floats:
    """Return what all orientations of a picture have in common and photos have not, [N, F], of length 1."""
    i, j = np.array(_UPPER).T
    one, other = np.abs(frequencies[:, i, j]), np.abs(frequencies[:, j, i])
    both = np.concatenate([np.maximum(one, other), np.minimum(one, other)[:, i != j]], axis=1)
    return _unit(_unit(np.sqrt(both)) - _MEAN)  # the root: else the few largest decide


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6), np.float32)


def _blocks(number: int, other: Floats) -> Iterator[slice]:
    """Yield slices of so many vectors that their products with others are few enough."""
    size = max(1, _MOST_PRODUCTS // max(other.size, 1))
    for start in range(0, number, size):
        yield slice(start, start + size)


def _products(vectors: Floats, others: Floats) -> Floats:
    """Return the products of all with all, [N, M]."""
    found: Floats = np.empty((len(vectors), len(others)), np.float32)
    for block in _blocks(len(vectors), others):
        found[block] = vectors[block] @ others.T
    return found


def _near(thumbnails: npt.NDArray[np.uint8]) -> Iterator[Ints]:
    """Yield pairs that are alike through a window, packed."""
    whole = _sorted_magnitudes(_frequencies(thumbnails, 0))
    centres = _centres(whole)
    members = _grouped(_products(whole, centres).argmax(axis=1), len(centres))
    num_probed = min(_PROBED, len(centres))
    for window in range(len(WINDOWS)):
        asked = whole if window == 0 else _sorted_magnitudes(_frequencies(thumbnails, window))
        none = np.zeros(0, np.int64)
        parts_found = [(none, none, np.zeros(0, np.float32))]
        nearest = np.argpartition(-_products(asked, centres), num_probed - 1, axis=1)[:, :num_probed]
        for part, askers in enumerate(_grouped(nearest.ravel(), len(centres))):
            there = whole[members[part]]
            for block in _blocks(len(askers), there):
                rows = askers[block] // num_probed
                cosines = asked[rows] @ there.T
                one, other = np.nonzero(cosines > _LEAST_ALIKE)
                is_crowded = np.bincount(one, minlength=len(rows)) > _MOST_PAIRS + 1  # the picture itself is one
                if is_crowded.any():
                    least = np.full(len(rows), _LEAST_ALIKE, np.float32)
                    least[is_crowded] = np.partition(cosines[is_crowded], -_MOST_PAIRS - 1, axis=1)[:, -_MOST_PAIRS - 1]
                    one, other = np.nonzero(cosines >= least[:, None])
                first, second = rows[one], members[part][other]
                is_pair = first < second if window == 0 else first != second
                parts_found.append((first[is_pair], second[is_pair], cosines[one, other][is_pair]))
        first, second, values = (np.concatenate(column) for column in zip(*parts_found, strict=True))
        kept = _most_alike(first, values)
        yield _packed(first[kept], second[kept], values[kept], window, len(thumbnails))


def _most_alike(pictures: Ints, values: Floats) -> Ints:
    """Return the places of each picture's highest values, a few, in order."""
    is_crowded = np.bincount(pictures, minlength=1)[pictures] > _MOST_PAIRS
    crowded = np.flatnonzero(is_crowded)
    order = crowded[np.lexsort((-values[crowded], pictures[crowded]))]
    of = pictures[order]
    rank = np.arange(len(of)) - np.searchsorted(of, of)
    return np.sort(np.concatenate([np.flatnonzero(~is_crowded), order[rank < _MOST_PAIRS]]))


def _centres(vectors: Floats) -> Floats:
    """Return the middles of a coarse partition (spherical k-means over a sample), [parts, F]."""
    if len(vectors) < _PARTS_FROM:
        return np.zeros((1, vectors.shape[1]), np.float32)
    num_parts = 1 << int(np.log2(np.sqrt(len(vectors)) * 1.5))
    generator = np.random.default_rng(0)
    sample = vectors[generator.choice(len(vectors), min(len(vectors), 32 * num_parts), replace=False)]
    centres = sample[:num_parts].copy()
    for _ in range(6):
        sums = np.zeros_like(centres)
        np.add.at(sums, _products(sample, centres).argmax(axis=1), sample)
        is_empty = ~sums.any(axis=1)
        sums[is_empty] = centres[is_empty]
        centres = _unit(sums)
    return centres


def _grouped(values: Ints, number: int) -> list[Ints]:
    """Return the places of each value from 0 to number."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.searchsorted(values[order], np.arange(1, number)))


def _packed(first: Ints, second: Ints, cosines: Floats, window: int, number: int) -> Ints:
    """Return one number a find; in order, finds of one pair follow each other, the most alike first."""
    pair = np.minimum(first, second) * number + np.maximum(first, second)
    unlike = ((1 - cosines) * _STEPS).astype(np.int64)
    return ((pair * _STEPS + np.clip(unlike, 0, _STEPS - 1)) * len(WINDOWS) + window) * 2 + (first > second)


def _best_windows(found: Ints, number: int) -> tuple[Ints, Ints, Ints]:
    """Return first, second and window of each pair once, where it is most alike."""
    found = np.sort(found)
    pair = found // (2 * len(WINDOWS) * _STEPS)
    best = found[np.diff(pair, prepend=-1) != 0]
    pair, window, is_swapped = best // (2 * len(WINDOWS) * _STEPS), best // 2 % len(WINDOWS), best % 2 == 1
    low, high = pair // number, pair % number
    return np.where(is_swapped, high, low), np.where(is_swapped, low, high), window


def _turned(thumbnails: npt.NDArray[np.uint8], first: Ints, second: Ints, window: Ints) -> Pairs:
    """Return the pairs that are alike in some orientation, with the best one."""
    whole = _unit(_frequencies(thumbnails, 0).reshape(len(thumbnails), -1))
    cosine, orientation = np.zeros(len(first), np.float32), np.zeros(len(first), np.int64)
    size = _ORDER + 1
    for number in range(len(WINDOWS)):
        rows = np.flatnonzero(window == number)
        if not len(rows):
            continue
        seen = whole if number == 0 else _unit(_frequencies(thumbnails, number).reshape(len(thumbnails), -1))
        for start in range(0, len(rows), _CHUNK):
            of = rows[start : start + _CHUNK]
            mine, other = seen[first[of]], whole[second[of]]
            swapped = other.reshape(-1, size, size).swapaxes(1, 2).reshape(len(of), -1)
            cosines = np.concatenate([_products(mine * of_one, _SIGNS) for of_one in (other, swapped)], axis=1)
            orientation[of], cosine[of] = cosines.argmax(axis=1), cosines.max(axis=1)
    pairs = Pairs(first, second, window, orientation)
    kept = np.zeros(len(first), np.bool_)
    for pictures in (first, second):
        kept[_most_alike(pictures, cosine)] = True
    return pairs.where(kept & (cosine > _LEAST_ALIKE_TURNED))
