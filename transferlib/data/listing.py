"""What was found before any file is opened: the candidates, what is no candidate and why, and how they are laid out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from transferlib.errors import DataError
from transferlib.names import SPLITS

Layout = Literal["class folders", "split folders", "manifest"]
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
            raise DataError("\n".join([*problems, "Add images to these classes, or leave them out."]))

    def planned_counts(self, val: float, test: float) -> dict[str, int]:
        """Return how many images each split will have, about: the cut itself depends on the files' contents.

        Args:
            val: Share for choosing of what is to be cut.
            test: Share for the final figure of what is to be cut.
        """
        given = {split: sum(of.values()) for split, of in self.count_by_split_and_class().items()}
        role = split_roles(given)
        counts = dict.fromkeys(SPLITS, 0)
        for split, number in given.items():
            if split:
                counts[role.renamed.get(split, split)] += number
        free = given.get("", 0)
        if free:
            counts["val"] += (to_val := round(free * val))
            counts["test"] += (to_test := round(free * test))
            counts["train"] += free - to_val - to_test
        for part, share in (("test", test), ("val", val)):
            if part in role.cut_from_train:
                moved = round(given.get("train", 0) * share)
                counts[part] += moved
                counts["train"] -= moved
        return counts


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
