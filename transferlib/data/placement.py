"""What a tree of files means: hidden names, classes and splits by folder; the same on a disk and in an object store."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from transferlib.data.levels import Levels, count_levels, share_levels
from transferlib.data.listing import Entry, Layout, Listing, SkippedFile
from transferlib.errors import DataError
from transferlib.names import split_of
from transferlib.words import some

SYSTEM_NAMES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"})
SHOWN = 6
"""Names in a sentence."""
IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx"),
    }
)


SIDECAR_SUFFIXES = frozenset({".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".md", ".html"})


class FoundFile(NamedTuple):
    """Name a file under the root."""

    image_id: str
    path: str
    """Absolute, or a URI."""
    real: Hashable
    """What two names of one file have in common: device and inode, or an object's URI."""


@dataclass
class Walked:
    """Hold what was met under a root: files, folders and what cannot be gone into."""

    files: list[FoundFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    """Relative paths."""
    skipped: list[SkippedFile] = field(default_factory=list)
    """Without labels yet."""


def is_system_name(name: str) -> bool:
    """Say whether a name is one that systems leave behind or hide (.DS_Store, ._photo.jpg, Thumbs.db)."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def place_files(root: str, walked: Walked, class_level: int | None = None) -> Listing:
    """Read class and split off each file's place.

    Args:
        root: Absolute path or URI.
        walked: What is under it.
        class_level: Which folders name the classes, counted from the root or from the split folders: 1 or 2; None: 1,
            where it is not in doubt.

    Raises:
        DataError: There are no class folders, a class folder holds no files, or which folders name the classes is in
            doubt.
    """
    top = sorted(folder for folder in walked.folders if "/" not in folder)
    layout = _layout_of(top, walked)
    places = _Places(layout, root, class_level or 1)
    if class_level is None and layout != "splits in class folders":
        places.notes += _ask_if_ambiguous(root, walked, depth=int(layout == "split folders"))
    for file in walked.files:
        places.put(file)
    for skipped in walked.skipped:
        places.skip(skipped)
    if places.layout == "split folders":
        for name in top:
            if split_of(name) is None:
                places.notes.append(f"Folder {name!r} is neither train, val nor test, so it is left out.")
    if places.layout == "class folders" and (inside := _splits_inside(top, walked)):
        places.notes.append(f"{inside} looks like a split inside a class, but {_why_no_splits(walked)}.")
    if places.layout == "splits in class folders":
        strays = sorted(image_id for image_id in _image_ids(walked) if places.place(image_id)[1] is None)
        if strays:
            places.notes.append(f"Images beside the split folders of their class are left out: {_some(strays)}.")
    if places.class_level == 2:
        above = "split folders" if places.layout == "split folders" else "folder given"
        pooled = "" if places.layout == "split folders" else f" All are cut, whatever lies above them ({_some(top)})."
        places.notes.append(f"Classes are the folders two levels below the {above} (--class-level 2).{pooled}")
    places.check(walked)
    return Listing(
        root=root,
        layout=places.layout,
        entries=tuple(sorted(places.entries, key=lambda entry: entry.image_id)),
        skipped=tuple(sorted(places.skipped, key=lambda skipped: skipped.image_id)),
        notes=tuple(places.notes),
    )


def _layout_of(top: list[str], walked: Walked) -> Layout:
    """Decide by the folders at the top: all of them splits, or train and a held-out set beside others.

    A class may be called "train" (beside "bus"): one such name among others makes no split folder. Where all folders
    hold splits and nothing else, these are read inside the classes.
    """
    splits = {split_of(name) for name in top}
    known = splits - {None}
    if "train" in known and (len(known) > 1 or None not in splits):
        return "split folders"
    if known and None not in splits:
        return "split folders"
    below = _below(top, walked)
    if len(top) > 1 and all(any(map(split_of, below[name])) for name in top):
        named = {split_of(inner) for name in top for inner in below[name]} - {None}
        if "train" in named and len(named) > 1 and not share_levels(_split_levels(walked)):
            return "splits in class folders"
    return "class folders"


def _below(folders: Collection[str], walked: Walked) -> dict[str, set[str]]:
    """Return the names of the folders in each of some folders."""
    below: dict[str, set[str]] = {folder: set() for folder in folders}
    for folder in walked.folders:
        above, _, name = folder.rpartition("/")
        if above in below:
            below[above].add(name)
    return below


def _image_ids(walked: Walked) -> list[str]:
    return [file.image_id for file in walked.files if claims_to_be_image(file.image_id)]


def _split_levels(walked: Walked) -> dict[str, Levels]:
    """Count the images of each top folder that lie in split folders in it, and beside them."""
    return count_levels(_image_ids(walked), 0, split_of)


def _splits_inside(top: list[str], walked: Walked) -> str:
    """Return a folder with a split's name inside a class folder; empty where there is none."""
    found = [f"{name}/{inner}" for name, inners in _below(top, walked).items() for inner in inners if split_of(inner)]
    return f"Folder {min(found)!r}" if found else ""


def _why_no_splits(walked: Walked) -> str:
    """Return why folders with a split's name inside classes are not taken for splits, and what that means."""
    levels = _split_levels(walked)
    if any(of.num_beside and of.inside for of in levels.values()) and all(of.inside for of in levels.values()):
        beside = sum(of.num_beside for of in levels.values())
        first = next(of.first_beside for of in levels.values() if of.first_beside)
        return (
            f"images lie beside such folders ({beside:,}; {as_text(first)!r}): all images are cut. To keep the splits, "
            "move these into split folders, or away"
        )
    return "not all classes have such folders: all images are cut"


def _ask_if_ambiguous(root: str, walked: Walked, depth: int) -> list[str]:
    """Refuse folders of which either these or those below them may be the classes.

    Args:
        root: Of the images.
        walked: What is under it.
        depth: Of the folders: 0 at the top, 1 below split folders.

    Returns:
        A note where images on both levels decide it; else nothing.

    Raises:
        DataError: Such folders hold no images themselves, or next to none, and folders of the same name are below
            several of them.
    """
    folders = sorted(folder for folder in walked.folders if folder.count("/") == depth)
    if depth:
        folders = [folder for folder in folders if split_of(folder.partition("/")[0])]
    if len({PurePosixPath(folder).name for folder in folders}) < 2:
        return []
    of_name: dict[str, set[str]] = {}
    for folder, inners in _below(folders, walked).items():
        of_name.setdefault(PurePosixPath(folder).name, set()).update(inners)
    counted = Counter(inner for inners in of_name.values() for inner in inners)
    shared = sorted(name for name, number in counted.items() if number > 1)
    if not shared:
        return []
    upper, lower = (_some(names) for names in (sorted(of_name), sorted(counted)))
    among = set(folders)
    levels = {folder: of for folder, of in count_levels(_image_ids(walked), depth, bool).items() if folder in among}
    if share_levels(levels):
        first = next(of.first_beside for of in levels.values() if of.first_beside)
        return [
            f"Folders of one name ({_some(shared)}) are in several others, but images lie beside them too "
            f"({as_text(first)!r}), so the classes are {upper} (--class-level 2 reads {lower})."
        ]
    raise DataError(
        f"{root} can be read in two ways, since folders of one name ({_some(shared)}) are in several others. Either "
        f"the classes are {upper} (add --class-level 1), or they are {lower} (add --class-level 2)."
        + ("" if depth else f" Are {upper} splits? Only by usual names are they kept: call them train, val and test.")
    )


def _some(names: Sequence[str]) -> str:
    return some([repr(as_text(name)) for name in names], SHOWN)


def class_name(name: str) -> str:
    """Return a class's name as it is compared: letters and their accents composed (NFC), whatever wrote the folder."""
    return unicodedata.normalize("NFC", name)


def claims_to_be_image(name: str) -> bool:
    """Say whether a file's name promises an image: one that is none is then a mistake, and a side-car file is not."""
    return PurePosixPath(name).suffix.casefold() in IMAGE_SUFFIXES


@dataclass
class _Places:
    """Sort what a walk met into candidates and the rest, by where it lies."""

    layout: Layout
    root: str
    class_level: int
    entries: list[Entry] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _sights: dict[tuple[Hashable, str, str | None], str] = field(default_factory=dict)

    def place(self, image_id: str) -> tuple[str | None, str | None]:
        """Return (split, class) of a path; None where the place gives none."""
        folders = PurePosixPath(image_id).parts[:-1]
        place = self.class_level - 1
        if self.layout == "splits in class folders":
            split = split_of(folders[1]) if len(folders) > 1 else None
            return (split, folders[0]) if split else (None, None)
        if self.layout == "class folders":
            return None, folders[place] if len(folders) > place else None
        split = split_of(folders[0]) if folders else None
        return split, folders[place + 1] if split and len(folders) > place + 1 else None

    def put(self, file: FoundFile) -> None:
        split, label = self.place(file.image_id)
        if label is None:
            wanted = "split folder of a class" if self.layout == "splits in class folders" else "class folder"
            self.skip(SkippedFile(file.image_id, file.path, "", f"not inside a {wanted}", is_bad=False))
            return
        first = self._sights.setdefault((file.real, label, split), file.image_id)
        if first != file.image_id:
            self.skip(SkippedFile(file.image_id, file.path, "", f"the same file as {first}", is_bad=False))
        elif not is_text(file.image_id):
            self.skip(SkippedFile(file.image_id, file.path, "", "name is not UTF-8; rename the file"))
        else:
            self.entries.append(Entry(file.image_id, file.path, class_name(label), split))

    def skip(self, skipped: SkippedFile) -> None:
        split, label = self.place(skipped.image_id)
        self.skipped.append(
            skipped._replace(
                image_id=as_text(skipped.image_id),
                uri=as_text(skipped.uri),
                label=class_name(as_text(label or "")),
                split=split,
            )
        )

    def check(self, walked: Walked) -> None:
        """Raise for a source that holds no classes, or a class that holds no files."""
        depth = self.class_level + (self.layout == "split folders")
        labels = {self.place(f"{folder}/x")[1] for folder in walked.folders if folder.count("/") == depth - 1}
        named = {class_name(as_text(label)) for label in labels if label}
        beside = Counter(entry.label for entry in self.entries if _is_beside_images(entry.image_id))
        counted = Counter(entry.label for entry in self.entries)
        if self.entries and beside.total() < len(self.entries):
            # Where all is of such kinds, what is wrong is another thing.
            self.entries = [entry for entry in self.entries if beside[entry.label] < counted[entry.label]]
        empty = sorted(named - {entry.label for entry in self.entries})
        reasons = {skipped.label: skipped.reason for skipped in self.skipped}
        if empty and self.entries:
            told = [f"{label!r} ({reasons[label]})" if label in reasons else repr(label) for label in empty]
            raise DataError(f"Class folders without images: {', '.join(told)} in {self.root}. Fill or remove them.")
        if not self.entries:
            unreadable = [s for s in self.skipped if s.reason.startswith("folder cannot be read")]
            why = f" {unreadable[0].image_id}: {unreadable[0].reason}." if unreadable else ""
            level = f" at --class-level {self.class_level}" if self.class_level > 1 else ""
            raise DataError(
                f"{self.root} holds no images in class folders{level}.{why} "
                "Expected class/image.jpg, or train/class/image.jpg and test/class/image.jpg."
            )


def _is_beside_images(name: str) -> bool:
    """Say whether a file is of a kind that lies beside images and is none: a folder of these alone is no class."""
    return PurePosixPath(name).suffix.casefold() in SIDECAR_SUFFIXES


def is_text(name: str) -> bool:
    """Say whether a file name is valid UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(name: str) -> str:
    """Return a file name as valid text, bytes that are not UTF-8 written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
