"""A coarse partition of pictures in all orientations, so that each need be compared with a few parts only."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from transferlib.data.frequencies import ORIENTATIONS, Floats, Ints, products_of, turned, whole_numbers

_PARTS_FROM = 1_000
"""Pictures from which there is more than one part."""
_MOST_PARTS = 1 << 14
"""So few that 16 bits number them; 7 million pictures have as many."""
_SAMPLED = 32
"""Pictures for each part that the centres are made of."""
_ROUNDS = 6
_PROBED = 4
"""Nearest parts that a window is compared with: among 13,000 pictures they hold 99.5 % of true pairs."""
_CHUNK = 4_096
"""Vectors before it is said that the work goes on."""
_BLOCK = 1 << 16
"""Products that are looked at while they are in the processor's own memory."""

OnStep = Callable[[], None]
"""Called every second at most or so; what it raises ends the work."""


class Parts(NamedTuple):
    """Hold a coarse partition of pictures in all orientations; those on which nothing is seen are in no part."""

    centres: Floats
    """[F, parts]."""
    members: list[Ints]
    """By part: row x orientations + orientation."""

    @classmethod
    def of(cls, vectors: Floats, on_step: OnStep = lambda: None) -> Self:
        """Divide pictures (spherical k-means over a sample); few are one part.

        Args:
            vectors: [N, F].
            on_step: Called between steps.
        """
        num_turns = len(ORIENTATIONS)
        rows = np.flatnonzero(vectors.any(axis=1))
        every = (rows[:, None] * num_turns + np.arange(num_turns)).ravel()
        if len(rows) < _PARTS_FROM:
            return cls(np.zeros((vectors.shape[1], 1), np.float32), [every])
        num_parts = num_parts_of(len(rows))
        drawn = np.random.default_rng(0).choice(every, min(len(every), _SAMPLED * num_parts), replace=False)
        sample = turned(vectors[drawn // num_turns], drawn % num_turns)
        centres = sample[:num_parts].copy()
        for _ in range(_ROUNDS):
            sums = sums_of(_nearest(sample, centres, on_step), sample, num_parts)
            is_empty = ~sums.any(axis=1)
            sums[is_empty] = centres[is_empty]
            centres = whole_numbers(sums)
        nearest = np.empty(len(every), np.uint16)
        for at in range(0, len(every), _CHUNK):
            some = every[at : at + _CHUNK]
            nearest[at : at + _CHUNK] = _nearest(turned(vectors[some // num_turns], some % num_turns), centres, on_step)
        return cls(np.ascontiguousarray(centres.T), [every[of] for of in _grouped(nearest, num_parts)])

    def askers(self, windows: Floats) -> list[Ints]:
        """Return for each part the places of windows that lie near it; one on which nothing is seen asks nowhere.

        Args:
            windows: [W, F].
        """
        num_parts, seen = self.centres.shape[1], np.flatnonzero(windows.any(axis=1))
        if num_parts <= _PROBED:
            return [seen] * num_parts
        near = []
        size = max(1, _BLOCK // num_parts)
        for at in range(0, len(seen), size):
            products = products_of(windows[seen[at : at + size]], self.centres)
            least = np.partition(products, -_PROBED, axis=1)[:, -_PROBED, None]
            near.append(np.flatnonzero(products >= least) + at * num_parts)
        place, part = np.divmod(np.concatenate([np.zeros(0, np.int64), *near]), num_parts)
        return [seen[place[of]] for of in _grouped(part.astype(np.uint16), num_parts)]


def num_parts_of(number: int) -> int:
    """Return into how many parts pictures are divided.

    Args:
        number: Of pictures.
    """
    return min(_MOST_PARTS, 1 << int(np.log2(np.sqrt(number) * 6)))


def sums_of(groups: Ints, vectors: Floats, number: int) -> npt.NDArray[np.float64]:
    """Return the sum of each group of vectors of whole numbers, exactly, [groups, F].

    Args:
        groups: [N], of each vector.
        vectors: [N, F].
        number: Of groups.
    """
    sums = np.zeros((number, vectors.shape[1]))
    for at in range(0, len(vectors), _CHUNK):
        np.add.at(sums, groups[at : at + _CHUNK], vectors[at : at + _CHUNK].astype(np.float64))
    return sums


def _nearest(vectors: Floats, centres: Floats, on_step: OnStep) -> Ints:
    """Return the centre that lies nearest to each vector, [N]; all products at once would not fit into memory."""
    columns, size = np.ascontiguousarray(centres.T), max(1, _BLOCK * 4 // len(centres))
    nearest = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), _CHUNK):
        on_step()
        for at in range(start, min(start + _CHUNK, len(vectors)), size):
            end = min(at + size, start + _CHUNK)
            nearest[at:end] = products_of(vectors[at:end], columns).argmax(axis=1)
    return nearest


def _grouped(values: npt.NDArray[np.uint16], number: int) -> list[Ints]:
    """Return the places of each value from 0 to number."""
    order = np.argsort(values, kind="stable")  # of so few bits it is a radix sort
    return np.split(order, np.bincount(values, minlength=number).cumsum()[:-1])
