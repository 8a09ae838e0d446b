"""Near duplicates: photos that are another file of the same picture, or the next frame of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from transferlib.data.frequencies import ORIENTATIONS, WINDOWS
from transferlib.data.likeness import have_one_colouring, show_the_same
from transferlib.data.lookalikes import OnProgress, find_lookalikes
from transferlib.data.looks import COLOUR_SIDE, SIDE, Look

_TURNS = {
    (False, False, False): "",
    (False, False, True): "mirrored",
    (False, True, False): "upside down, mirrored",
    (False, True, True): "upside down",
    (True, False, False): "turned, mirrored",
    (True, True, True): "turned, mirrored",
    (True, False, True): "turned",
    (True, True, False): "turned",
}


class NearPair(NamedTuple):
    """Name two images that show the same; of each content one image stands for all."""

    first: int
    """Row of the earlier image."""
    second: int
    """Row of the later."""
    likeness: float
    """From `likeness.LEAST_LIKENESS` to 1."""
    how: str
    """mirrored, turned, upside down, cropped: how they seem to differ; empty where only a little."""


def tell_nobody(done: int, total: int) -> None:
    """Stand in for somebody who hears how far work is."""


def find_near_duplicates(
    sha256: Sequence[str], looks: Sequence[Look | None], on_progress: OnProgress = tell_nobody
) -> list[NearPair]:
    """Return the pairs of images that show the same and are not the same content, in the order of their rows.

    Found are copies that were encoded anew, resized, mirrored, turned by quarters or cropped by up to a tenth, and
    frames of a burst. Images with little to be seen (blank ones, scans of a few pixels) match only where they are
    equal. How many are found, and how many wrong ones: `docs/benchmarks/near_duplicates_2-cpu_202611.md`.

    Args:
        sha256: N contents.
        looks: N; None for what is no image.
        on_progress: Called with (images compared, images in all), every few seconds at most and at the end; what it
            raises ends the search.
    """
    rows: dict[str, int] = {}
    for row, (content, look) in enumerate(zip(sha256, looks, strict=True)):
        if look is not None:
            rows.setdefault(content, row)
    kept = list(rows.values())
    pictures = [look.thumbnail for row in kept if (look := looks[row]) is not None]
    thumbnails = np.frombuffer(b"".join(pictures), np.uint8).reshape(-1, SIDE, SIDE)
    number = len(kept)
    pairs = find_lookalikes(thumbnails, lambda done, _: on_progress(done // 2, number))
    likeness = show_the_same(
        thumbnails, pairs, lambda done, of: on_progress((number + number * done // of) // 2, number)
    )
    on_progress(number, number)
    grey = bytes([128]) * (2 * COLOUR_SIDE * COLOUR_SIDE)
    of_all = [look.colours or grey for row in kept if (look := looks[row]) is not None]
    colours = np.frombuffer(b"".join(of_all), np.uint8).reshape(-1, COLOUR_SIDE, COLOUR_SIDE, 2)
    places = np.flatnonzero(likeness)
    found = []
    for place in places[have_one_colouring(colours, pairs.where(places))]:
        one, other = kept[pairs.first[place]], kept[pairs.second[place]]
        how = [
            _TURNS[ORIENTATIONS[pairs.orientation[place]]],
            "cropped" if _is_cropped(int(pairs.window[place])) else "",
        ]
        found.append(
            NearPair(min(one, other), max(one, other), float(likeness[place]), ", ".join(word for word in how if word))
        )
    return sorted(found)


def _is_cropped(window: int) -> bool:
    return any(any(cut) for cut in WINDOWS[window])


class NearRows(NamedTuple):
    """Hold what near duplicates there are among N images."""

    pairs: list[NearPair]
    groups: list[str | None]
    """[N], the same id of an image for all that show the same; None: no other does."""
    ids: list[str]
    """[N]."""
    labels: list[str]
    """[N]."""
    sides: dict[int, list[tuple[float, int]]]
    """By row that stands for its content: what shows the same, with the likeness."""
    stands_for: list[int]
    """[N], the row that stands for the content of each."""

    @classmethod
    def find(
        cls,
        sha256: Sequence[str],
        looks: Sequence[Look | None],
        ids: Sequence[str],
        labels: Sequence[str],
        on_progress: OnProgress = tell_nobody,
    ) -> Self:
        """Look for near duplicates.

        Args:
            sha256: N contents.
            looks: N; None: not looked at.
            ids: N.
            labels: N.
            on_progress: As of `find_near_duplicates`.
        """
        order = sorted(range(len(ids)), key=lambda row: ids[row])  # so that nothing depends on the order of the rows
        found = find_near_duplicates([sha256[row] for row in order], [looks[row] for row in order], on_progress)
        pairs = [pair._replace(first=order[pair.first], second=order[pair.second]) for pair in found]
        first: dict[str, int] = {}
        for row in order:
            first.setdefault(sha256[row], row)
        sides: dict[int, list[tuple[float, int]]] = {}
        for pair in pairs:
            for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
                sides.setdefault(one, []).append((pair.likeness, other))
        groups = [None if row is None else ids[row] for row in near_groups(sha256, pairs, order)]
        return cls(pairs, groups, list(ids), list(labels), sides, [first[content] for content in sha256])

    def other(self, row: int, splits: Sequence[int]) -> str | None:
        """Return the id of an image that shows the same: rather of another split, then of another class.

        Args:
            row: Of the image.
            splits: Of all images.
        """
        of = self.sides.get(self.stands_for[row])
        if not of:
            return None

        def telling(side: tuple[float, int]) -> tuple[bool, bool, float, int]:
            likeness, other = side
            return splits[other] != splits[row], self.labels[other] != self.labels[row], likeness, -other

        return self.ids[max(of, key=telling)[1]]


class RecordedRows(NamedTuple):
    """Hold what an earlier search found; stands in for `NearRows`."""

    groups: Sequence[str | None]
    others: Sequence[str | None]

    def other(self, row: int, splits: Sequence[int]) -> str | None:
        """Return what `NearRows.other` returned."""
        return self.others[row]


def near_groups(sha256: Sequence[str], pairs: Sequence[NearPair], order: Sequence[int]) -> list[int | None]:
    """Return for each image the first row of those that it shows the same as, over any number of links.

    Args:
        sha256: N contents; images of one content go together.
        pairs: Of rows.
        order: All rows; the first of a group in this order names it.

    Returns:
        N; None where no other content shows the same.
    """
    parent: dict[str, str] = {}

    def root(content: str) -> str:
        parent.setdefault(content, content)
        while parent[content] != content:
            parent[content] = content = parent[parent[content]]
        return content

    for pair in pairs:
        parent[root(sha256[pair.first])] = root(sha256[pair.second])
    first: dict[str, int] = {}
    for row in order:
        if sha256[row] in parent:
            first.setdefault(root(sha256[row]), row)
    return [first[root(content)] if content in parent else None for content in sha256]
