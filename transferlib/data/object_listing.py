"""Image folders in an object store: keys below a prefix, placed as files in a folder are."""

from __future__ import annotations

from transferlib.data.listing import HIDDEN_REASON, Listing, SkippedFile
from transferlib.data.placement import FoundFile, Walked, claims_to_be_image, is_system_name, place_files
from transferlib.errors import DataError
from transferlib.storage.locations import Location
from transferlib.storage.uris import is_plain_key

ODD_KEY_REASON = "key has an empty part, '.' or '..', which no path has; rename the object"


def list_prefix(location: Location, class_level: int | None = None) -> Listing:
    """List the images below a prefix; ids are relative to it, so a folder and its copy in a store give the same ids.

    Args:
        location: Of the images.
        class_level: As `place_files` takes it.

    Raises:
        DataError: Nothing is there, there are no class folders, or a class folder holds no images.
        StorageError: The store cannot be used.
    """
    objects, folders = location.tree()
    if not objects and not folders:
        raise DataError(
            f"{location.uri} does not exist: no object's key begins with it. Give a prefix with class folders below, "
            "or a .csv or .jsonl manifest."
        )
    walked = Walked()
    hidden: set[str] = set()
    for found in objects:
        name = found.name
        if not is_plain_key(name):
            is_bad = claims_to_be_image(name)
            walked.skipped.append(SkippedFile(name, f"{location.uri}/{name}", "", ODD_KEY_REASON, is_bad=is_bad))
        elif top := _hidden_part(name):
            hidden.add(top)
        else:
            uri = location.uri_of(name)
            walked.files.append(FoundFile(name, uri, uri))
    walked.folders = [name for name in folders if is_plain_key(name) and not _hidden_part(name)]
    hidden |= {top for name in folders if is_plain_key(name) and (top := _hidden_part(name))}
    walked.skipped += [
        SkippedFile(name, location.uri_of(name), "", HIDDEN_REASON, is_bad=False) for name in sorted(hidden)
    ]
    return place_files(location.uri, walked, class_level)


def _hidden_part(name: str) -> str:
    """Return the path down to the first hidden or system name, which hides all below it; empty where there is none."""
    parts = name.split("/")
    for depth, part in enumerate(parts, start=1):
        if is_system_name(part):
            return "/".join(parts[:depth])
    return ""
