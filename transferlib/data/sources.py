"""Where images come from: an image folder or a CSV or JSONL manifest, here or in an object store; no image is opened.

Standard library only (for URIs pyarrow too), so that `submit plan` and `--dry-run` answer at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from transferlib.data.folders import list_folder
from transferlib.data.listing import Entry, Layout, Listing, SkippedFile
from transferlib.data.table_files import TABLE_SUFFIXES, list_table
from transferlib.errors import DataError
from transferlib.storage.locations import is_uri, open_location

__all__ = ["Entry", "Layout", "Listing", "SkippedFile", "list_images"]


def list_images(source: str | Path) -> Listing:
    """List the candidate images of a source, in the order of their ids whatever the order on disk.

    Args:
        source: A folder laid out as `class/...` or `train|val|valid|validation|test/class/...`, nested deeper too, or a
            .csv or .jsonl manifest; a path, or a URI (s3://, gs://).

    Raises:
        DataError: Nothing there, no classes, one class only, a class without files, or wrong manifest rows.
        StorageError: The store of a URI cannot be used.
    """
    listing = _list_uri(str(source)) if is_uri(str(source)) else _list_path(Path(source))
    if len(listing.classes) == 1:
        raise DataError(_one_class(listing))
    return listing


def _list_path(path: Path) -> Listing:
    absolute = Path(os.path.abspath(path.expanduser()))
    if absolute.is_dir():
        return list_folder(absolute)
    if not absolute.is_file():
        raise DataError(f"{path} does not exist. Give an image folder, or a .csv or .jsonl manifest.")
    if absolute.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(_no_source(str(path)))
    return list_table(str(absolute))


def _list_uri(uri: str) -> Listing:
    from transferlib.data.object_listing import list_prefix

    location = open_location(uri)
    is_table = uri.lower().endswith(TABLE_SUFFIXES)
    if is_table:
        return list_table(location.uri)
    if location.info() is not None:
        raise DataError(_no_source(uri))
    return list_prefix(location)


def _no_source(name: str) -> str:
    return (
        f"{name} is neither a folder nor a manifest. "
        f"Give an image folder, or a file ending in {' or '.join(TABLE_SUFFIXES)}."
    )


def _one_class(listing: Listing) -> str:
    only = listing.classes[0]
    text = f"{listing.root} has one class only, {only!r}; telling classes apart needs two."
    inside = f"{listing.root}/{only}"
    if listing.layout == "class folders":
        below = sorted({entry.image_id.split("/")[1] for entry in listing.entries if entry.image_id.count("/") > 1})
        if below:
            text += f" It holds the folders {', '.join(below[:5])}: did you mean --data {inside}?"
    return text
