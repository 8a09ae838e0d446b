"""Where images come from: an image folder or a CSV or JSONL manifest, here or in an object store; no image is opened.

Standard library only (for URIs pyarrow too), so that `submit plan` and `--dry-run` answer at once.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

from transferlib.data.folders import list_folder
from transferlib.data.listing import Entry, Layout, Listing, SkippedFile
from transferlib.data.placement import as_text, is_text
from transferlib.data.table_files import TABLE_SUFFIXES, list_table
from transferlib.errors import DataError
from transferlib.storage.locations import is_uri, open_location
from transferlib.words import first_of

__all__ = ["Entry", "Layout", "Listing", "SkippedFile", "list_images"]


def list_images(source: str | Path, class_level: int | None = None, group_regex: str | None = None) -> Listing:
    """List the candidate images of a source, in the order of their ids whatever the order on disk.

    Args:
        source: A folder laid out as `class/...`, `train|val|test/class/...` or `class/train|val|test/...` (splits by
            any usual name: `names.split_of`), nested deeper too, or a .csv or .jsonl manifest; a path, or a URI
            (s3://, gs://).
        class_level: Which folders name the classes, from the top or below the splits: 1 or 2; None: 1, and a question
            where 2 fits as well. A manifest has no such folders.
        group_regex: Over image ids; what its bracket matches is the group of an image that has none.

    Raises:
        DataError: Nothing there, no classes, one class only, a class without files, wrong manifest rows, or folders
            that can be read in two ways.
        StorageError: The store of a URI cannot be used.
    """
    listing = _list_uri(str(source), class_level) if is_uri(str(source)) else _list_path(Path(source), class_level)
    if len(listing.classes) == 1:
        raise DataError(_one_class(listing))
    idle = class_level is not None and listing.layout == "manifest"
    told = [f"--class-level {class_level} acts on nothing: the table names the classes."] if idle else []
    listing = replace(listing, notes=(*listing.notes, *told, *_near_equal_names(listing)))
    return listing if group_regex is None else _grouped(listing, re.compile(group_regex))


def _grouped(listing: Listing, pattern: re.Pattern[str]) -> Listing:
    """Return a listing whose images have the groups that their names say.

    Raises:
        DataError: No name says one.
    """
    found = [pattern.search(entry.image_id) for entry in listing.entries]
    named = [entry.group or (match[1] if match else None) for entry, match in zip(listing.entries, found, strict=True)]
    if not any(found):
        raise DataError(
            f"--group-regex {pattern.pattern!r} matches no image's path; the first is {listing.entries[0].image_id!r}. "
            "It is searched for in paths below the source."
        )
    entries = tuple(replace(entry, group=group) for entry, group in zip(listing.entries, named, strict=True))
    num_with = sum(group is not None for group in named)
    note = f"--group-regex: {num_with:,} of {len(entries):,} images in {len({*named} - {None}):,} groups."
    return replace(listing, entries=entries, notes=(*listing.notes, note))


def missing_source(source: str) -> str | None:
    """Return the sentence for a path where there is nothing; None where there is something, or it is a URI."""
    if is_uri(source) or Path(os.path.abspath(Path(source).expanduser())).exists():
        return None
    return f"{source} does not exist. Give an image folder, or a .csv or .jsonl manifest."


def _list_path(path: Path, class_level: int | None) -> Listing:
    absolute = Path(os.path.abspath(path.expanduser()))
    if not is_text(str(absolute)):
        raise DataError(f"{as_text(str(absolute))}: this path is not UTF-8. Rename the folder, or give a link to it.")
    if absolute.is_dir():
        return list_folder(absolute, class_level)
    if (problem := missing_source(str(path))) is not None:
        raise DataError(problem)
    if absolute.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(_no_source(str(path)))
    return list_table(str(absolute))


def _list_uri(uri: str, class_level: int | None) -> Listing:
    from transferlib.data.object_listing import list_prefix

    location = open_location(uri)
    is_table = uri.lower().endswith(TABLE_SUFFIXES)
    if is_table:
        return list_table(location.uri)
    if location.info() is not None:
        raise DataError(_no_source(uri))
    return list_prefix(location, class_level)


def _no_source(name: str) -> str:
    return (
        f"{name} is neither a folder nor a manifest. "
        f"Give an image folder, or a file ending in {' or '.join(TABLE_SUFFIXES)}."
    )


def _near_equal_names(listing: Listing) -> list[str]:
    """Return a note for class names that differ only by case, blanks, signs between words or the form of a number.

    Raises:
        DataError: Such names are in different splits: one is trained on, the other tested.
    """
    alike: dict[str, list[str]] = {}
    for label in listing.classes:
        alike.setdefault(_plain(label), []).append(label)
    splits: dict[str, set[str]] = {}
    for entry in listing.entries:
        splits.setdefault(entry.label, set()).add(entry.split or "")
    notes, problems = [], []
    for names in alike.values():
        if len(names) < 2:
            continue
        if set.intersection(*(splits[name] for name in names)):
            notes.append(
                f"The classes {' and '.join(map(repr, names))} look alike: are they one class? Give it one name."
            )
        else:
            where = " and ".join(f"{name!r} in {', '.join(sorted(splits[name]))}" for name in names)
            problems.append(f"Class names look alike and are in different splits: {where}. Give the class one name.")
    if problems:
        raise DataError("\n".join(first_of(problems, "problems")))
    return notes


def _plain(label: str) -> str:
    """Return what near-equal names have in common."""
    text = unicodedata.normalize("NFKC", label).casefold()
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    text = " ".join(re.split(r"[\s_\-]+", text.strip()))
    try:
        return str(float(text))
    except ValueError:
        return text


def _one_class(listing: Listing) -> str:
    only = listing.classes[0]
    text = f"{listing.root} has one class only, {only!r}; telling classes apart needs two."
    inside = f"{listing.root}/{only}"
    if listing.layout == "class folders":
        below = sorted({entry.image_id.split("/")[1] for entry in listing.entries if entry.image_id.count("/") > 1})
        if below:
            text += f" It holds the folders {', '.join(below[:5])}: did you mean --data {inside}?"
    return text
