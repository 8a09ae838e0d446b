"""Which pairs of small pictures may show the same: a search that looks at a few numbers of each, whatever its turn.

The numbers are a picture's low spatial frequencies (a cosine transform), which change sign and swap places when it is
mirrored or turned: each picture stands eight times among those that are searched. A copy that was cropped by up to a
tenth looks like one of the *windows* of the whole: each picture is asked for through all of them. From some hundreds of
pictures on, a window is compared only with what lies in the nearest parts of a coarse partition.

Of what a picture asks for only the most alike are kept; what they are depends on neither the order in which others are
looked at nor how the work is cut into blocks (`frequencies`: all numbers are whole).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from transferlib.data.frequencies import LENGTH, ORIENTATIONS, WINDOWS, Floats, Ints, products_of, turned, windows_of
from transferlib.data.partition import Parts

OnProgress = Callable[[int, int], None]
"""Called with (done, in all) every few seconds at most; what it raises ends the work."""

_LEAST_ALIKE = 0.86
"""Cosine of the frequencies below which a pair is dropped."""
_LEAST_PRODUCT = np.nextafter(np.float32(_LEAST_ALIKE * LENGTH**2), np.float32(np.inf))
_MOST_PAIRS = 16
"""Others that a picture asks for, the most alike: where thousands show one background, all are alike."""
_TILE = 256
"""Members of a part that windows are compared with at once."""
_BLOCK = 1 << 16
"""Products that are looked at while they are in the processor's own memory."""
_CHUNK = 4_096
"""Pictures that ask before it is said how far the search is."""
_MOST_FINDS = 64
"""Finds of a picture that asks, on average, that are added before all but the best are dropped."""


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

    A pair is there where one asks for the other; those that ask for a picture may be any number.

    Args:
        thumbnails: [N, SIDE, SIDE] grey.
        on_progress: Called with (pictures that have asked, N), with 0 while the search is prepared.
    """
    if len(thumbnails) < 2:
        none = np.zeros(0, np.int64)
        return Pairs(none, none, none, none)
    number, whole = len(thumbnails), []
    starts = range(0, number, _CHUNK)
    for start in starts:
        on_progress(0, number)
        whole.append(windows_of(thumbnails[start : start + _CHUNK], 1)[:, 0])
    vectors = np.concatenate(whole)
    parts, finds = Parts.of(vectors, lambda: on_progress(0, number)), []
    for start in starts:
        on_progress(start, number)
        finds.append(_ask(thumbnails[start : start + _CHUNK], start, vectors, parts))
    return _Finds.joined(finds).pairs(number)


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
        return found.where(_most_alike(found.first, found.second, found.value, _MOST_PAIRS))

    def least(self, start: int, number: int) -> Floats:
        """Return the value that a find of each of some pictures must have to be among the best, at least, [number].

        Args:
            start: Row of the first picture that asks.
            number: Of pictures that ask.
        """
        num_found, lowest = np.zeros(number, np.int64), np.full(number, np.inf, np.float32)
        np.add.at(num_found, self.first - start, 1)
        np.minimum.at(lowest, self.first - start, self.value)
        return np.where(num_found < _MOST_PAIRS, _LEAST_PRODUCT, lowest)

    def pairs(self, number: int) -> Pairs:
        """Return each pair once, in order, as whichever of both asked for it best."""
        key = np.minimum(self.first, self.second) * number + np.maximum(self.first, self.second)
        order = np.lexsort((self.first, -self.value, key))
        first, second, way, _ = self.where(order[np.diff(key[order], prepend=-1) != 0])
        return Pairs(first, second, *np.divmod(way, len(ORIENTATIONS)))


def _ask(thumbnails: npt.NDArray[np.uint8], start: int, whole: Floats, parts: Parts) -> _Finds:
    """Return what some pictures are like, the most alike of each.

    Args:
        thumbnails: Of pictures that follow each other.
        start: Row of the first.
        whole: [N, F], of all pictures.
        parts: Of all pictures.
    """
    windows, num_turns = windows_of(thumbnails).reshape(-1, whole.shape[1]), len(ORIENTATIONS)
    least = np.full(len(thumbnails), _LEAST_PRODUCT)
    best, found, num_found = _Finds.joined([]), list[_Finds](), 0
    for askers, members in zip(parts.askers(windows), parts.members, strict=True):
        asked, second, turns = windows[askers], members // num_turns, members % num_turns
        columns = np.ascontiguousarray(turned(whole[second], turns).T)
        for at in range(0, len(members) if len(asked) else 0, _TILE):
            tile = slice(at, at + _TILE)
            some = np.ascontiguousarray(columns[:, tile])
            one, other, value = _alike(asked, some, second[tile], least[askers // len(WINDOWS)])
            first, window = np.divmod(askers[one], len(WINDOWS))
            finds = _Finds(first + start, second[at + other], window * num_turns + turns[at + other], value)
            found.append(finds.where(finds.first != finds.second))
            num_found += len(found[-1].first)
            if num_found > _MOST_FINDS * len(thumbnails):
                best, found, num_found = _Finds.joined([best, *found]).best(), [], 0
                least = best.least(start, len(thumbnails))
    return _Finds.joined([best, *found]).best()


def _alike(vectors: Floats, columns: Floats, second: Ints, least: Floats) -> tuple[Ints, Ints, Floats]:
    """Return which are alike enough, and their products; of each vector only those that can be the best of a picture.

    Args:
        vectors: [N, F].
        columns: [F, M].
        second: [M], the picture of each column; those of one follow each other.
        least: [N], what a product must be.
    """
    found = []
    size = max(1, _BLOCK // columns.shape[1])
    for start in range(0, len(vectors), size):
        products = products_of(vectors[start : start + size], columns)
        one, other = np.divmod(np.flatnonzero(products >= least[start : start + size, None]), products.shape[1])
        value = products[one, other]
        if len(one) > _MOST_PAIRS and np.bincount(one).max() > _MOST_PAIRS:
            kept = _most_alike_of_each(one, second[other], value)
            one, other, value = one[kept], other[kept], value[kept]
        found.append((one + start, other, value))
    one, other, values = (np.concatenate(column) for column in zip(*found, strict=True))
    return one, other, values


def _most_alike_of_each(windows: Ints, second: Ints, values: Floats) -> Ints:
    """Return the places of each window's highest values, each picture counting once; a window finds its own too.

    Args:
        windows: In order.
        second: In order within a window.
        values: Of both.
    """
    is_new = (np.diff(windows, prepend=-1) != 0) | (np.diff(second, prepend=-1) != 0)
    of = is_new.cumsum() - 1
    highest = np.flatnonzero(values == np.maximum.reduceat(values, np.flatnonzero(is_new))[of])
    highest = highest[np.diff(of[highest], prepend=-1) != 0]  # of equal orientations the first
    kept = _most_alike(windows[highest], second[highest], values[highest], _MOST_PAIRS + 1)
    return np.asarray(highest[kept], np.int64)


def _most_alike(pictures: Ints, others: Ints, values: Floats, number: int) -> Ints:
    """Return the places of each picture's highest values, in order; of equal ones the first others.

    Args:
        pictures: That others belong to.
        others: Each once for a picture.
        values: Of both.
        number: Of places for each picture.
    """
    is_crowded = np.bincount(pictures, minlength=1)[pictures] > number
    crowded = np.flatnonzero(is_crowded)
    order = crowded[np.lexsort((others[crowded], -values[crowded], pictures[crowded]))]
    of = pictures[order]
    rank = np.arange(len(of)) - np.searchsorted(of, of)
    return np.sort(np.concatenate([np.flatnonzero(~is_crowded), order[rank < number]]))
