"""On which of two levels of folders the images lie: most of them below, with a few left behind, or on both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

MOST_STRAYS = 0.25
"""Images beside the folders that hold the others, as a share of those, up to which they are taken for left behind."""


class Levels(NamedTuple):
    """Count the images of a folder by where they lie."""

    inside: int
    """In the folders that matter below it."""
    num_beside: int
    first_beside: str
    """Image id; empty where there is none."""


def count_levels(image_ids: Iterable[str], depth: int, matters: Callable[[str], object]) -> dict[str, Levels]:
    """Count the images of each folder at a depth.

    Args:
        image_ids: Of what claims to be an image.
        depth: Of the folders; 0: the top.
        matters: Says of the name of a folder below these whether what it holds lies inside.
    """
    found: dict[str, Levels] = {}
    for image_id in sorted(image_ids):
        parts = PurePosixPath(image_id).parts
        if len(parts) < depth + 2:
            continue
        folder = "/".join(parts[: depth + 1])
        inside, beside, first = found.get(folder, Levels(0, 0, ""))
        if len(parts) > depth + 2 and matters(parts[depth + 1]):
            found[folder] = Levels(inside + 1, beside, first)
        else:
            found[folder] = Levels(inside, beside + 1, first or image_id)
    return found


def share_levels(levels: Mapping[str, Levels]) -> bool:
    """Say whether images lie beside the folders below too, in numbers that are no oversight (a cover, a sample).

    Args:
        levels: By folder.
    """
    inside, beside = sum(of.inside for of in levels.values()), sum(of.num_beside for of in levels.values())
    return beside > MOST_STRAYS * inside or any(of.num_beside and of.num_beside >= of.inside for of in levels.values())
