"""Near duplicates: photos that are another file of the same picture, or the next frame of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from transferlib.data.likeness import show_the_same
from transferlib.data.lookalikes import ORIENTATIONS, WINDOWS, find_lookalikes
from transferlib.data.looks import SIDE, Look

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


def find_near_duplicates(sha256: Sequence[str], looks: Sequence[Look | None]) -> list[NearPair]:
    """Return the pairs of images that show the same and are not the same content, in the order of their rows.

    Found are copies that were encoded anew, resized, mirrored, turned by quarters or cropped by up to a tenth, and
    frames of a burst. Images with little to be seen (blank ones, scans of a few pixels) match only where they are
    equal. How many are found, and how many wrong ones: `docs/benchmarks/near_duplicates_2-cpu_202611.md`.

    Args:
        sha256: N contents.
        looks: N; None for what is no image.
    """
    rows: dict[str, int] = {}
    for row, (content, look) in enumerate(zip(sha256, looks, strict=True)):
        if look is not None:
            rows.setdefault(content, row)
    kept = list(rows.values())
    pictures = [look.thumbnail for row in kept if (look := looks[row]) is not None]
    thumbnails = np.frombuffer(b"".join(pictures), np.uint8).reshape(-1, SIDE, SIDE)
    pairs = find_lookalikes(thumbnails)
    likeness = show_the_same(thumbnails, pairs)
    found = []
    for place in np.flatnonzero(likeness):
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


def near_groups(sha256: Sequence[str], pairs: Sequence[NearPair]) -> list[int | None]:
    """Return for each image the first row of those that it shows the same as, over any number of links.

    Args:
        sha256: N contents; images of one content go together.
        pairs: Of rows.

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
    return [first.setdefault(root(content), row) if content in parent else None for row, content in enumerate(sha256)]
