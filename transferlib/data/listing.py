"""What was found before any file is opened: the candidates, what is no candidate and why, and how they are laid out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from transferlib.errors import DataError
from transferlib.names import SPLITS
from transferlib.words import first_of

Layout = Literal["class folders", "split folders", "splits in class folders", "manifest"]
HELD_OUT = ("val", "test")
HIDDEN_REASON = "hidden or system file, not taken for an image"


@dataclass(frozen=True)
class Entry:
    """Name one candidate image."""

    image_id: str
    """Path relative to the source's folder, with forward slashes; unique in a listing."""
    uri: str
    """Absolute path, or an object's URI."""
    label: str
    """Class name."""
    split: str | None = None
    """train, val or test where the source says so; None: to be cut."""
    group: str | None = None
    """Images of one group (a patient, a scene) never straddle a split."""


class SkippedFile(NamedTuple):
    """Name what was seen while listing and is no candidate."""

    image_id: str
    uri: str
    label: str
    """Class name; empty where the place gives none."""
    reason: str
    split: str | None = None
    is_bad: bool = True
    """False for what nobody takes for an image (.DS_Store): a row, but no alarm and no reason to stop."""


@dataclass(frozen=True)
class Listing:
    """Hold the candidates of one source, ordered by image id."""

    root: str
    """Absolute path or URI that was listed: a folder, or a manifest file."""
    layout: Layout
    entries: tuple[Entry, ...]
    skipped: tuple[SkippedFile, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences for the user about how the source was read."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names, sorted; a label's index everywhere is its place here."""
        return tuple(sorted({entry.label for entry in self.entries}))

    def count_by_split_and_class(self) -> dict[str, dict[str, int]]:
        """Return candidates by split and class; the split "" holds what is still to be cut."""
        counted = Counter((entry.split or "", entry.label) for entry in self.entries)
        return {
            split: {label: counted[split, label] for label in self.classes if counted[split, label]}
            for split in ("", *SPLITS)
            if any(key[0] == split for key in counted)
        }

    @property
    def roles(self) -> SplitRoles:
        """Return what the given splits are for, and which parts are cut from train."""
        return split_roles(self.count_by_split_and_class())

    def check_counts(self) -> None:
        """Refuse, before any file is read, classes that no cut can give to every part.

        Raises:
            DataError: One line a class that is short, with what it has and needs.
        """
        counts, roles = self.count_by_split_and_class(), self.roles
        problems = []
        for label in self.classes:
            free = counts.get("", {}).get(label, 0)
            given = {
                roles.renamed.get(split, split): of[label] for split, of in counts.items() if split and label in of
            }
            train = given.get("train", 0)
            if roles.cut_from_train:
                needed = 1 + len(roles.cut_from_train)
                if train < needed:
                    problems.append(
                        f"Class {label!r} has {train} train images; train and {_and(roles.cut_from_train)} "
                        f"are cut from them and need {needed}."
                    )
                continue
            missing = [split for split in SPLITS if not given.get(split)]
            if len(missing) > free:
                has = ", ".join(f"{number} in {split}" for split, number in given.items()) or f"{free} to be cut"
                problems.append(f"Class {label!r} has {has}, and none for {_and(missing)}.")
        if problems:
            problems = first_of(problems, "classes")
            raise DataError("\n".join([*problems, "Add images to these classes, or leave them out."]))

    def check_folds(self, num_folds: int) -> None:
        """Refuse, before any file is read, what cannot be cut into folds.

        Args:
            num_folds: K.

        Raises:
            DataError: Sets to hold out are given, or a class has fewer images than folds.
        """
        counts = self.count_by_split_and_class()
        if not counts.keys() <= {""} and not counts.keys() <= {"train"}:
            given = _and(split or "none" for split in counts)
            raise DataError(
                f"--folds {num_folds} cuts all images anew, but {self.root} gives splits to some or all of them "
                f"({given}). Leave --folds out, or give the images without their splits."
            )
        problems = [
            f"Class {label!r} has {sum(of.get(label, 0) for of in counts.values())} images, fewer than --folds "
            f"{num_folds}."
            for label in self.classes
            if sum(of.get(label, 0) for of in counts.values()) < num_folds
        ]
        if problems:
            problems = first_of(problems, "classes")
            raise DataError("\n".join([*problems, "Use fewer folds, add images to these classes, or leave them out."]))

    def planned_fold_counts(self, num_folds: int) -> dict[str, int]:
        """Return how many images each split will have in the first fold; in others a class may differ by one image.

        Args:
            num_folds: K.
        """
        sizes = Counter(entry.label for entry in self.entries)
        test, val, *train = map(sum, fold_counts([sizes[label] for label in self.classes], num_folds))
        return {"train": sum(train), "val": val, "test": test}

    def planned_counts(self, val: float, test: float) -> dict[str, int]:
        """Return how many images each split will have: `planned_counts_by_class`, summed over the classes.

        Args:
            val: Share for choosing of what is to be cut.
            test: Share for the final figure of what is to be cut.
        """
        return {split: sum(of.values()) for split, of in self.planned_counts_by_class(val, test).items()}

    def planned_counts_by_class(self, val: float, test: float) -> dict[str, dict[str, int]]:
        """Return how many images of each class each split will have, by split and class.

        That is what the cut gives where every candidate decodes and none is a copy or in a group. What must stay
        together changes it by at most one such component a class and split (groups of many classes: rarely by more).

        Args:
            val: Share for choosing of what is to be cut.
            test: Share for the final figure of what is to be cut.
        """
        counts, roles = self.count_by_split_and_class(), self.roles
        planned = {split: dict.fromkeys(self.classes, 0) for split in SPLITS}
        for split, of in counts.items():
            for label, number in of.items() if split else ():
                planned[roles.renamed.get(split, split)][label] += number
        shares = roles.shares(val, test)
        for label in self.classes:
            free = counts.get("", {}).get(label, 0)
            if roles.cut_from_train:
                free, planned["train"][label] = planned["train"][label], 0
            needed = [split for split in shares if not planned[split][label]]
            for split, number in part_counts(free, shares, needed).items():
                planned[split][label] += number
        return planned


def part_counts(number: int, shares: Mapping[str, float], needed: Collection[str]) -> dict[str, int]:
    """Divide a number of images by shares: one image after another to the part that is furthest behind its share.

    So one more image makes one part one larger and none smaller, and each part is within one image of its share
    (unless it is so small that only `needed` gives it its image).

    Args:
        number: Of images.
        shares: Share of each part; they add up to 1. Of parts that are equally far behind, the first is served.
        needed: Parts that get an image before any other does, while there are images.

    Source: Sainte-Laguë 1910, Webster's method in Balinski and Young 1982, Fair Representation. That two or three parts
    stay within one image is what a test tries.
    """
    first = sorted(needed, key=lambda part: -shares[part])[:number]
    # Two below the share is below the result, from where the same steps lead to it.
    counts = {part: max(int(part in first), math.floor(number * share) - 2) for part, share in shares.items()}
    while sum(counts.values()) < number:
        counts[max(shares, key=lambda part: shares[part] / (2 * counts[part] + 1))] += 1
    return counts


def fold_counts(class_sizes: Sequence[int], num_folds: int) -> list[list[int]]:
    """Return how many images each part gets of each class, [K][classes]: equal to within one, by class and in all.

    Args:
        class_sizes: Images of each class.
        num_folds: K.
    """
    parts: list[list[int]] = [[] for _ in range(num_folds)]
    for number in class_sizes:
        each, left = divmod(number, num_folds)
        smallest = sorted(range(num_folds), key=lambda part: sum(parts[part]))[:left]
        for part, counts in enumerate(parts):
            counts.append(each + (part in smallest))
    return parts


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)


class SplitRoles(NamedTuple):
    """Say what given splits mean and what is still cut from train."""

    renamed: dict[str, str]
    """A given held-out set that plays another part: {"val": "test"}."""
    cut_from_train: tuple[str, ...]
    """Parts that train gives images to."""
    note: str
    """For the user; empty where nothing needs saying."""

    def shares(self, val: float, test: float) -> dict[str, float]:
        """Return the share of each part in what is cut; they add up to 1.

        Args:
            val: Share for choosing.
            test: Share for the final figure.
        """
        asked = {"test": test, "val": val}
        parts = self.cut_from_train or SPLITS
        shares = {part: share for part, share in asked.items() if part in parts}
        return {**shares, "train": 1.0 - sum(shares.values())}


def split_roles(given: Iterable[str]) -> SplitRoles:
    """Decide what the splits of a source are for.

    Train and one held-out set: that set is the test set, whatever it is called, so that figures compare with published
    ones; the set for choosing is cut from train. Train alone: both are cut from it. All three: as they are. Where some
    images have no split, those are cut over all three parts and the given ones stay.

    Args:
        given: Splits that the source has images in; "" for images to be cut.
    """
    present = set(given)
    held_out = [split for split in HELD_OUT if split in present]
    if "" in present or "train" not in present or len(held_out) == len(HELD_OUT):
        return SplitRoles({}, (), "")
    if not held_out:
        note = "Only a train set is given: val and test are cut from it, by class."
        return SplitRoles({}, HELD_OUT, note)
    name = held_out[0]
    note = f"Train and one held-out set ({name}) are given: {name} is the test set; val is cut from train, by class."
    return SplitRoles({name: "test"}, ("val",), note)
