"""What a path in a row of a manifest points to: a file or an object, and the image's id."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path, PurePath
from typing import NamedTuple

from transferlib.storage.uris import is_uri, parse_uri


class RowPlace(NamedTuple):
    """Say where a row's image lies."""

    image_id: str
    """Relative to the manifest's folder; the URI where that is another store or bucket."""
    uri: str
    """Absolute path or URI."""


def place_row(folder: str, path: str) -> RowPlace:
    """Return where a row's image lies; nothing is looked at.

    Args:
        folder: Of the manifest, absolute path or URI.
        path: As the row gives it: relative to the folder, absolute, or a URI.

    Raises:
        ValueError: It can point to no image; the text says why.
        UsageError: It is a URI of a kind that is not known, or with credentials.
    """
    if "\0" in path:
        raise ValueError(f"{path!r} is no path.")
    if is_uri(path):
        return _place_uri(folder, path)
    if folder.startswith("/"):
        uri = os.path.normpath(Path(folder) / path)
        return RowPlace(PurePath(os.path.relpath(uri, folder)).as_posix(), uri)
    if path.startswith("/"):
        raise ValueError(
            f"{path!r} is a path on a disk, and the manifest is in an object store: give it relative to the manifest's "
            "folder, or as a URI."
        )
    root = parse_uri(folder)
    key = posixpath.normpath(posixpath.join(root.key, path))
    if key.startswith("..") or key == ".":
        raise ValueError(f"{path!r} leads out of the bucket {root.bucket}.")
    return _place_uri(folder, f"{root.scheme}://{root.bucket}/{key}")


def _place_uri(folder: str, uri: str) -> RowPlace:
    parsed = parse_uri(uri)
    if not parsed.key:
        raise ValueError(f"{uri!r} names a bucket; give an object.")
    if folder.startswith("/") or parse_uri(folder)[:2] != parsed[:2]:
        return RowPlace(parsed.uri, parsed.uri)
    return RowPlace(posixpath.relpath(parsed.key, parse_uri(folder).key or "."), parsed.uri)
