"""What a manifest says of near duplicates and of how its images look, in sentences."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pyarrow as pa

from transferlib.names import SPLITS


class NearCounts(NamedTuple):
    """Count used images that show the same as others."""

    images: int
    """That are in a group of near duplicates."""
    groups: int
    in_train: dict[str, int]
    """By val and test: images that show the same as one of train."""
    other_class: int
    """Images that show the same as one of another class."""


def count_near(table: pa.Table) -> NearCounts:
    """Count near duplicates among the used images.

    Args:
        table: Of a manifest.
    """
    columns = (table[name].to_pylist() for name in ("near_group", "split", "label", "status"))
    rows = [row[:3] for row in zip(*columns, strict=True) if row[0] is not None and row[3] == "used"]
    splits: dict[str, set[str]] = {}
    labels: dict[str, set[str]] = {}
    for group, split, label in rows:
        splits.setdefault(group, set()).add(split)
        labels.setdefault(group, set()).add(label)
    sizes = Counter(group for group, _, _ in rows)
    rows = [row for row in rows if sizes[row[0]] > 1]
    leaked = Counter(split for group, split, _ in rows if "train" in splits[group])
    return NearCounts(
        images=len(rows),
        groups=len({group for group, _, _ in rows}),
        in_train={split: leaked[split] for split in SPLITS[1:]},
        other_class=sum(len(labels[group]) > 1 for group, _, _ in rows),
    )


def near_notes(table: pa.Table, *, is_grouped: bool) -> list[str]:
    """Return what is said of near duplicates that do no harm.

    Args:
        table: Of a manifest.
        is_grouped: Whether they stay on one side and count as one.
    """
    found = count_near(table)
    if not found.images:
        return []
    what = (
        "where they were cut they are on one side, and each group counts as one"
        if is_grouped
        else "each counts by itself (--near-duplicates group keeps them together)"
    )
    return [f"Near duplicates: {found.images:,} images in {found.groups:,} groups that show the same; {what}."]


def near_alarms(table: pa.Table) -> list[str]:
    """Return what is said loudly of near duplicates: across splits and across classes.

    Args:
        table: Of a manifest.
    """
    found = count_near(table)
    splits = Counter(
        split
        for split, status in zip(table["split"].to_pylist(), table["status"].to_pylist(), strict=True)
        if status == "used"
    )
    alarms = [
        f"{number:,} of {splits[split]:,} {split} images ({100 * number / splits[split]:.1f} %) show the same as a "
        "training image: figures on them say little of new photos. manifest.parquet names them (near_duplicate)."
        for split, number in found.in_train.items()
        if number
    ]
    if found.other_class:
        alarms.append(
            f"{found.other_class:,} images show the same as an image of another class: decide which label is right. "
            "manifest.parquet names them (near_duplicate)."
        )
    return alarms


def look_notes(table: pa.Table) -> list[str]:
    """Return one sentence on images that look odd; none where there are none.

    Args:
        table: Of a manifest.
    """
    used = zip(table["remarks"].to_pylist(), table["status"].to_pylist(), strict=True)
    words = Counter(word for text, status in used if text and status == "used" for word in text.split("; "))
    if not words:
        return []
    return [f"How images look: {', '.join(f'{number:,} {word}' for word, number in sorted(words.items()))}."]
