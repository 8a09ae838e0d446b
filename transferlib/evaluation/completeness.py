"""Every image once: hold a table's images against those it must have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

_SHOWN = 3


def completeness_problems(
    image_ids: Sequence[str], labels: Sequence[int], expected: Mapping[str, int]
) -> tuple[str, ...]:
    """Return what is wrong with a table's images, a phrase a kind of fault; empty when nothing is.

    Args:
        image_ids: N ids of the table's rows.
        labels: N label indices.
        expected: Label index by image id.
    """
    seen = set(image_ids)
    other = [image for image, label in zip(image_ids, labels, strict=True) if expected.get(image, label) != label]
    faults = {
        "missing": sorted(expected.keys() - seen),
        "twice there": sorted(image for image, count in Counter(image_ids).items() if count > 1),
        "not of this split": sorted(seen - expected.keys()),
        "with another label": other,
    }
    return tuple(f"{len(ids)} {fault}: {some_of(ids)}" for fault, ids in faults.items() if ids)


def some_of(ids: Sequence[str]) -> str:
    """Return the first few of a list as text."""
    return ", ".join(ids[:_SHOWN]) + (" ..." if len(ids) > _SHOWN else "")
