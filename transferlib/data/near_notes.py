"""What a manifest says of near duplicates and of how its images look, in sentences."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import pyarrow as pa

from transferlib.names import SPLITS
from transferlib.words import count


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


class Side(NamedTuple):
    """Name one image of a pair."""

    image_id: str
    label: str
    split: str
    """Empty where it is left out."""
    uri: str
    sha256: str


class CopyPair(NamedTuple):
    """Name two images that show the same, or have the same content."""

    sides: tuple[Side, Side]
    is_same_content: bool

    @property
    def is_conflict(self) -> bool:
        """Say whether their labels differ."""
        return self.sides[0].label != self.sides[1].label

    @property
    def is_leak(self) -> bool:
        """Say whether both are used, in different splits."""
        splits = {side.split for side in self.sides}
        return len(splits) > 1 and "" not in splits

    def to_plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        sides = [{name: getattr(side, name) for name in ("image_id", "label", "split")} for side in self.sides]
        return {"images": sides, "same_content": self.is_same_content}


def copy_pairs(table: pa.Table) -> list[CopyPair]:
    """Return pairs of images that show the same: labels that contradict first, then leaks, then the others.

    Of near duplicates each used image stands in one pair at least, with what tells most about it; of the same content
    those whose labels contradict each other are here, the first with one of each other label.

    Args:
        table: Of a manifest.
    """
    names = ("image_id", "label", "split", "uri", "sha256", "status", "near_duplicate")
    rows = {row["image_id"]: row for row in table.select(names).to_pylist()}
    pairs: dict[frozenset[str], CopyPair] = {}
    for row in rows.values():
        other = rows.get(row["near_duplicate"] or "")
        if row["status"] == "used" and other is not None and other["status"] == "used":
            key = frozenset((row["image_id"], other["image_id"]))
            pairs.setdefault(key, CopyPair((_side(row), _side(other)), is_same_content=False))
    contents: dict[str, dict[str, Side]] = defaultdict(dict)
    for row in rows.values():
        if row["status"] == "label_conflict":
            contents[row["sha256"]].setdefault(row["label"], _side(row))
    found = list(pairs.values())
    for by_label in contents.values():
        first, *others = by_label.values()
        found += [CopyPair((first, other), is_same_content=True) for other in others]
    return sorted(found, key=lambda pair: (not pair.is_conflict, not pair.is_leak, pair.sides[0].image_id))


def _side(row: dict[str, Any]) -> Side:
    split = row["split"] if row["status"] == "used" else ""
    return Side(row["image_id"], row["label"], split, row["uri"], row["sha256"])


def shown_in_train(table: pa.Table, split: str) -> set[str]:
    """Return the ids of used images of a split that show the same as a training image.

    Args:
        table: Of a manifest.
        split: val or test.
    """
    columns = (table[name].to_pylist() for name in ("image_id", "near_group", "split", "status"))
    rows = [row for row in zip(*columns, strict=True) if row[1] is not None and row[3] == "used"]
    in_train = {group for _, group, where, _ in rows if where == "train"}
    return {image_id for image_id, group, where, _ in rows if where == split and group in in_train}


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
    return [f"Near duplicates: {found.images:,} images in {count(found.groups, 'group')} that show the same; {what}."]


def near_alarms(table: pa.Table, whole: str) -> list[str]:
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
        "training image: figures on them say little of new photos. "
        f"{whole} names them."
        for split, number in found.in_train.items()
        if number
    ]
    if found.other_class:
        alarms.append(
            f"{found.other_class:,} images show the same as an image of another class: decide which label is right. "
            f"{whole} names them."
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
