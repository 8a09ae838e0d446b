"""What a tree of files means: hidden names, classes and splits by folder; the same on a disk and in an object store."""

from __future__ import annotations

import os
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from transferlib.data.listing import Entry, Layout, Listing, SkippedFile
from transferlib.errors import DataError
from transferlib.names import SPLIT_ALIASES

SYSTEM_NAMES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


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


def place_files(root: str, walked: Walked) -> Listing:
    """Read class and split off each file's place.

    Args:
        root: Absolute path or URI.
        walked: What is under it.

    Raises:
        DataError: There are no class folders, or a class folder holds no files.
    """
    top = sorted(folder for folder in walked.folders if "/" not in folder)
    places = _Places(_layout_of(top), root)
    for file in walked.files:
        places.put(file)
    for skipped in walked.skipped:
        places.skip(skipped)
    if places.layout == "split folders":
        for name in top:
            if name.casefold() not in SPLIT_ALIASES:
                places.notes.append(f"Folder {name!r} is neither train, val nor test, so it is left out.")
    places.check(walked)
    return Listing(
        root=root,
        layout=places.layout,
        entries=tuple(sorted(places.entries, key=lambda entry: entry.image_id)),
        skipped=tuple(sorted(places.skipped, key=lambda skipped: skipped.image_id)),
        notes=tuple(places.notes),
    )


def _layout_of(top: list[str]) -> Layout:
    """Decide by the folders at the top: all of them splits, or train and a held-out set beside others.

    A class may be called "train" (beside "bus"): one such name among others makes no split folder.
    """
    splits = {SPLIT_ALIASES.get(name.casefold()) for name in top}
    known = splits - {None}
    if "train" in known and (len(known) > 1 or None not in splits):
        return "split folders"
    return "split folders" if known and None not in splits else "class folders"


@dataclass
class _Places:
    """Sort what a walk met into candidates and the rest, by where it lies."""

    layout: Layout
    root: str
    entries: list[Entry] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _sights: dict[tuple[Hashable, str, str | None], str] = field(default_factory=dict)

    def place(self, image_id: str) -> tuple[str | None, str | None]:
        """Return (split, class) of a path; None where the place gives none."""
        folders = PurePosixPath(image_id).parts[:-1]
        if self.layout == "class folders":
            return None, folders[0] if folders else None
        split = SPLIT_ALIASES.get(folders[0].casefold()) if folders else None
        return split, folders[1] if split and len(folders) > 1 else None

    def put(self, file: FoundFile) -> None:
        split, label = self.place(file.image_id)
        if label is None:
            looks_like_one = PurePosixPath(file.image_id).suffix.casefold() in IMAGE_SUFFIXES
            self.skip(SkippedFile(file.image_id, file.path, "", "not inside a class folder", is_bad=looks_like_one))
            return
        first = self._sights.setdefault((file.real, label, split), file.image_id)
        if first != file.image_id:
            self.skip(SkippedFile(file.image_id, file.path, "", f"the same file as {first}"))
        elif not is_text(file.image_id):
            self.skip(SkippedFile(file.image_id, file.path, "", "name is not UTF-8; rename the file"))
        else:
            self.entries.append(Entry(file.image_id, file.path, label, split))

    def skip(self, skipped: SkippedFile) -> None:
        split, label = self.place(skipped.image_id)
        self.skipped.append(
            skipped._replace(
                image_id=as_text(skipped.image_id), uri=as_text(skipped.uri), label=as_text(label or ""), split=split
            )
        )

    def check(self, walked: Walked) -> None:
        """Raise for a source that holds no classes, or a class that holds no files."""
        depth = 1 if self.layout == "class folders" else 2
        labels = {self.place(f"{folder}/x")[1] for folder in walked.folders if folder.count("/") == depth - 1}
        empty = sorted(as_text(label) for label in labels - {entry.label for entry in self.entries} if label)
        reasons = {skipped.label: skipped.reason for skipped in self.skipped}
        if empty and self.entries:
            told = [f"{label!r} ({reasons[label]})" if label in reasons else repr(label) for label in empty]
            raise DataError(f"Class folders without images: {', '.join(told)} in {self.root}. Fill or remove them.")
        if not self.entries:
            unreadable = [s for s in self.skipped if s.reason.startswith("folder cannot be read")]
            why = f" {unreadable[0].image_id}: {unreadable[0].reason}." if unreadable else ""
            raise DataError(
                f"{self.root} holds no images in class folders.{why} "
                "Expected class/image.jpg, or train/class/image.jpg and test/class/image.jpg."
            )


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
