"""Where images come from: an image folder or a CSV or JSONL manifest, listed without opening an image.

Standard library only, so that `submit plan` and `--dry-run` answer at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from transferlib.data.folders import list_folder
from transferlib.data.listing import Entry, Layout, Listing, SkippedFile
from transferlib.data.table_files import TABLE_SUFFIXES, list_table
from transferlib.errors import DataError

__all__ = ["Entry", "Layout", "Listing", "SkippedFile", "list_images"]


def list_images(path: Path) -> Listing:
    """List the candidate images of a source, in the order of their ids whatever the order on disk.

    Args:
        path: A folder laid out as `class/...` or `train|val|valid|validation|test/class/...`, nested deeper too, or a
            .csv or .jsonl manifest.

    Raises:
        DataError: Nothing there, no classes, one class only, a class without files, or wrong manifest rows.
    """
    absolute = Path(os.path.abspath(path.expanduser()))
    if absolute.is_dir():
        listing = list_folder(absolute)
    elif absolute.is_file():
        if absolute.suffix.lower() not in TABLE_SUFFIXES:
            raise DataError(
                f"{path} is neither a folder nor a manifest. "
                f"Give an image folder, or a file ending in {' or '.join(TABLE_SUFFIXES)}."
            )
        listing = list_table(absolute)
    else:
        raise DataError(f"{path} does not exist. Give an image folder, or a .csv or .jsonl manifest.")
    if len(listing.classes) == 1:
        raise DataError(_one_class(listing))
    return listing


def _one_class(listing: Listing) -> str:
    only = listing.classes[0]
    text = f"{listing.root} has one class only, {only!r}; telling classes apart needs two."
    inside = Path(listing.root) / only
    if listing.layout == "class folders":
        below = sorted({entry.image_id.split("/")[1] for entry in listing.entries if entry.image_id.count("/") > 1})
        if below:
            text += f" It holds the folders {', '.join(below[:5])}: did you mean --data {inside}?"
    return text
