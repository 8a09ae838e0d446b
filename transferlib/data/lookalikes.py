"""Which pairs of small pictures may show the same: a search that looks at a few numbers of each, whatever its turn.

The numbers are a picture's low spatial frequencies (a cosine transform), which change sign and swap places when it is
mirrored or turned: each picture stands eight times among those that are searched. A copy that was cropped by up to a
tenth looks like one of the *windows* of the whole: each picture is asked for through all of them. From some hundreds of
pictures on, a window is compared only with what lies in the nearest parts of a coarse partition.

All numbers are whole, and so small that float32 (float64 in one place) adds them without rounding: no find depends on
how the work is cut into blocks, on the order of sums or on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from transferlib.data.looks import SIDE

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
OnProgress = Callable[[int, int], None]
"""Called with (done, in all) every few seconds at most; what it raises ends the work."""

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
_LEAST_ALIKE = 0.86
"""Cosine of the frequencies below which a pair is dropped."""
_MOST_PAIRS = 16
"""Pairs of a picture, the most alike, that are looked at: where thousands show one background, all are alike."""
_PARTS_FROM = 1_000
"""Pictures from which the coarse partition is used."""
_PROBED = 4
"""Nearest parts that a window is compared with: among 13,000 pictures they hold 99.5 % of true pairs."""
_LENGTH = 4_000
"""Of a vector of whole numbers: less than the root of 2^24, below which float32 holds every whole number."""
_FINENESS = 4_096
"""Steps of 1 in a matrix of whole numbers: its products with lines of grey values stay below 2^24."""
_MOST_PRODUCTS = 1 << 18
"""Multiplications that one matrix product is given: OpenBLAS takes one thread for so few, and threads that wait for one
another cost more than they bring on a machine with other work."""
_TILE = 256
"""Members of a part that windows are compared with at once."""
_BLOCK = 1 << 16
"""Products that are looked at while they are in the processor's own memory."""
_CHUNK = 4_096
"""Pictures that ask before it is said how far the search is."""
_MOST_FINDS = 1 << 20
"""Finds that are added before all but the best of each picture are dropped."""


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


def find_lookalikes(thumbnails: npt.NDArray[np.uint8], on_progress: OnProgress = lambda done, total: None) -> Pairs:
    """Return the pairs that may show the same, each once.

    Args:
        thumbnails: [N, SIDE, SIDE] grey.
        on_progress: Called with (pictures that have asked, N).
    """
    if len(thumbnails) < 2:
        none = np.zeros(0, np.int64)
        return Pairs(none, none, none, none)
    starts = range(0, len(thumbnails), _CHUNK)
    whole = np.concatenate([_windows(thumbnails[start : start + _CHUNK], 1)[:, 0] for start in starts])
    parts, finds = _Parts.of(whole), []
    for start in starts:
        on_progress(start, len(thumbnails))
        finds.append(_ask(thumbnails[start : start + _CHUNK], start, whole, parts))
    return _Finds.joined(finds).pairs(len(thumbnails))


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
_LEAST_PRODUCT = np.float32(_LEAST_ALIKE * _LENGTH**2)
_MOST_ALIKE = len(ORIENTATIONS) * (_MOST_PAIRS + 1)
"""Finds of a window that can hold the best of its picture: it finds itself too, and each in any orientation."""


def _windows(thumbnails: npt.NDArray[np.uint8], number: int = len(WINDOWS)) -> Floats:
    """Return the weighted low frequencies of the first windows of pictures, [N, windows, F]."""
    across = np.matmul(thumbnails.astype(np.float32), _MATRIX.T.astype(np.float32))
    both = np.matmul(_MATRIX, across.astype(np.float64)).reshape(len(thumbnails), -1)
    found = both[:, _PLACES[: number * len(_USED)]].reshape(len(thumbnails), number, -1)
    return _whole_numbers(found * _WEIGHTS)


def _whole_numbers(vectors: npt.NDArray[np.floating]) -> Floats:
    """Return vectors of one length, rounded to whole numbers."""
    norms = np.sqrt(np.einsum("...f,...f->...", vectors, vectors))[..., None]
    return np.asarray(np.rint(vectors * (_LENGTH / np.maximum(norms, 1e-6))), np.float32)


def _turned(vectors: Floats, orientations: Ints) -> Floats:
    """Return pictures in an orientation each, [N, F]."""
    return np.asarray(np.take_along_axis(vectors, _FROM[orientations], axis=1) * _SIGNS[orientations], np.float32)


def _products(vectors: Floats, columns: Floats) -> Floats:
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


class _Parts(NamedTuple):
    """Hold a coarse partition of pictures in all orientations."""

    centres: Floats
    """[F, parts]."""
    members: list[Ints]
    """By part: row x orientations + orientation."""

    @classmethod
    def of(cls, vectors: Floats) -> Self:
        """Divide pictures (spherical k-means over a sample); few are one part."""
        every, num_turns = np.arange(len(vectors) * len(ORIENTATIONS)), len(ORIENTATIONS)
        if len(vectors) < _PARTS_FROM:
            return cls(np.zeros((vectors.shape[1], 1), np.float32), [every])
        num_parts = 1 << int(np.log2(np.sqrt(len(vectors)) * 6))
        generator = np.random.default_rng(0)
        drawn = generator.choice(len(every), min(len(every), 32 * num_parts), replace=False)
        sample = _turned(vectors[drawn // num_turns], drawn % num_turns)
        centres = sample[:num_parts].copy()
        for _ in range(6):
            sums = np.zeros_like(centres)
            np.add.at(sums, _products(sample, np.ascontiguousarray(centres.T)).argmax(axis=1), sample)
            is_empty = ~sums.any(axis=1)
            sums[is_empty] = centres[is_empty]
            centres = _whole_numbers(sums)
        columns = np.ascontiguousarray(centres.T)
        nearest = np.empty(len(every), np.int64)
        for at in range(0, len(every), _CHUNK):
            some = every[at : at + _CHUNK]
            turned = _turned(vectors[some // num_turns], some % num_turns)
            nearest[some] = _products(turned, columns).argmax(axis=1)
        return cls(columns, _grouped(nearest, num_parts))

    def askers(self, windows: Floats) -> list[Ints]:
        """Return for each part the places of windows that lie near it.

        Args:
            windows: [W, F].
        """
        num_parts = self.centres.shape[1]
        if num_parts <= _PROBED:
            return [np.arange(len(windows))] * num_parts
        near = []
        size = max(1, _BLOCK // num_parts)
        for at in range(0, len(windows), size):
            products = _products(windows[at : at + size], self.centres)
            least = np.partition(products, -_PROBED, axis=1)[:, -_PROBED, None]
            near.append(np.flatnonzero(products >= least) + at * num_parts)
        place, part = np.divmod(np.concatenate(near), num_parts)
        return [place[of] for of in _grouped(part, num_parts)]


def _grouped(values: Ints, number: int) -> list[Ints]:
    """Return the places of each value from 0 to number."""
    order = np.argsort(values.astype(np.uint16), kind="stable")  # of so few bits it is a radix sort
    return np.split(order, np.bincount(values, minlength=number).cumsum()[:-1])


class _Finds(NamedTuple):
    """Hold what pictures that ask are like, how, and how much."""

    first: Ints
    second: Ints
    way: Ints
    """Window x orientations + orientation."""
    value: Floats

    @classmethod
    def joined(cls, finds: Sequence[Self]) -> Self:
        """Return one after the other."""
        if not finds:
            none = np.zeros(0, np.int64)
            return cls(none, none, none, np.zeros(0, np.float32))
        return cls(
            np.concatenate([some.first for some in finds]),
            np.concatenate([some.second for some in finds]),
            np.concatenate([some.way for some in finds]),
            np.concatenate([some.value for some in finds]),
        )

    def where(self, kept: npt.NDArray[np.bool_] | Ints) -> Self:
        """Return some of the finds."""
        return type(self)(self.first[kept], self.second[kept], self.way[kept], self.value[kept])

    def best(self) -> Self:
        """Return each pair in its best way, and of each first picture the most alike."""
        order = np.lexsort((self.way, -self.value, self.second, self.first))
        is_new = np.diff(self.first[order], prepend=-1) != 0
        is_new |= np.diff(self.second[order], prepend=-1) != 0
        found = self.where(order[is_new])
        return found.where(_most_alike(found.first, found.second, found.value))

    def pairs(self, number: int) -> Pairs:
        """Return each pair once, in order, as whichever of both asked for it best; it is among the best of either."""
        key = np.minimum(self.first, self.second) * number + np.maximum(self.first, self.second)
        order = np.lexsort((self.first, -self.value, key))
        found = self.where(order[np.diff(key[order], prepend=-1) != 0])
        kept = np.zeros(len(found.first), np.bool_)
        for pictures, others in ((found.first, found.second), (found.second, found.first)):
            kept[_most_alike(pictures, others, found.value)] = True
        first, second, way, _ = found.where(kept)
        return Pairs(first, second, *np.divmod(way, len(ORIENTATIONS)))


def _ask(thumbnails: npt.NDArray[np.uint8], start: int, whole: Floats, parts: _Parts) -> _Finds:
    """Return what some pictures are like, the most alike of each.

    Args:
        thumbnails: Of pictures that follow each other.
        start: Row of the first.
        whole: [N, F], of all pictures.
        parts: Of all pictures.
    """
    windows, num_turns = _windows(thumbnails).reshape(-1, whole.shape[1]), len(ORIENTATIONS)
    found: list[_Finds] = []
    num_found = 0
    for askers, members in zip(parts.askers(windows), parts.members, strict=True):
        asked, second, turns = windows[askers], members // num_turns, members % num_turns
        columns = np.ascontiguousarray(_turned(whole[second], turns).T)
        for at in range(0, len(members) if len(asked) else 0, _TILE):
            one, other, value = _alike(asked, np.ascontiguousarray(columns[:, at : at + _TILE]))
            first, window = np.divmod(askers[one], len(WINDOWS))
            finds = _Finds(first + start, second[at + other], window * num_turns + turns[at + other], value)
            found.append(finds.where(finds.first != finds.second))
            num_found += len(found[-1].first)
            if num_found > _MOST_FINDS:
                found, num_found = [_Finds.joined(found).best()], 0
    return _Finds.joined(found).best()


def _alike(vectors: Floats, columns: Floats) -> tuple[Ints, Ints, Floats]:
    """Return which are alike enough, and their products; of each vector the most alike only.

    Args:
        vectors: [N, F].
        columns: [F, M].
    """
    found = []
    size = max(1, _BLOCK // columns.shape[1])
    for start in range(0, len(vectors), size):
        products = _products(vectors[start : start + size], columns)
        one, other = np.divmod(np.flatnonzero(products > _LEAST_PRODUCT), products.shape[1])
        if len(one) > _MOST_ALIKE and np.bincount(one).max() > _MOST_ALIKE:
            least = np.partition(products, -_MOST_ALIKE, axis=1)[:, -_MOST_ALIKE]
            least = np.maximum(least, np.nextafter(_LEAST_PRODUCT, np.float32(np.inf)))
            one, other = np.divmod(np.flatnonzero(products >= least[:, None]), products.shape[1])
        found.append((one + start, other, products[one, other]))
    one, other, values = (np.concatenate(column) for column in zip(*found, strict=True))
    return one, other, values


def _most_alike(pictures: Ints, others: Ints, values: Floats) -> Ints:
    """Return the places of each picture's highest values, a few, in order; of equal ones the first others."""
    is_crowded = np.bincount(pictures, minlength=1)[pictures] > _MOST_PAIRS
    crowded = np.flatnonzero(is_crowded)
    order = crowded[np.lexsort((others[crowded], -values[crowded], pictures[crowded]))]
    of = pictures[order]
    rank = np.arange(len(of)) - np.searchsorted(of, of)
    return np.sort(np.concatenate([np.flatnonzero(~is_crowded), order[rank < _MOST_PAIRS]]))
