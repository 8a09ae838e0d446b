"""Many objects by their URIs: states and bytes, a few requests at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from transferlib.errors import ObjectNotFoundError, StorageError, StorageUnreachableError
from transferlib.storage.connections import connect, storage_errors
from transferlib.storage.locations import Location, ObjectInfo, object_info
from transferlib.storage.uris import SCHEMES, parse_uri

CONCURRENCY = 8
"""Requests at a time in one process; pyarrow's own number of threads."""

_STARTS = tuple(f"{scheme}://" for scheme in SCHEMES)


def is_object(uri: str) -> bool:
    """Say whether a URI of ours, from a listing or a manifest, names an object rather than an absolute path."""
    return uri.startswith(_STARTS)


def find_object(uri: str) -> ObjectInfo | None:
    """Return an object's state under its whole URI, or None where it is not there.

    Args:
        uri: Taken literally.

    Raises:
        StorageUnreachableError: The store does not answer.
        StorageError: Access is refused.
    """
    parsed = parse_uri(uri)
    with storage_errors(uri):
        return object_info(connect(uri).get_file_info(parsed.path), uri)


def find_objects(uris: Sequence[str]) -> list[ObjectInfo | StorageError | None]:
    """Return what `find_object` returns for each URI, or the error that this one object gives.

    Raises:
        StorageUnreachableError: The store does not answer: that is no matter of one object.
    """
    by_bucket: defaultdict[str, list[int]] = defaultdict(list)
    found: list[ObjectInfo | StorageError | None] = [None] * len(uris)
    for place, uri in enumerate(uris):
        try:
            parsed = parse_uri(uri)
            by_bucket[f"{parsed.scheme}://{parsed.bucket}"].append(place)
        except StorageError as error:
            found[place] = error
    for bucket, places in by_bucket.items():
        for place, one in zip(places, _find_in(bucket, [uris[place] for place in places]), strict=True):
            found[place] = one
    return found


def _find_in(bucket: str, uris: Sequence[str]) -> Sequence[ObjectInfo | StorageError | None]:
    try:
        with storage_errors(bucket):
            infos = connect(bucket).get_file_info([parse_uri(uri).path for uri in uris])
        return [object_info(info, uri) for info, uri in zip(infos, uris, strict=True)]
    except StorageUnreachableError:
        raise
    except StorageError:  # of one of them: the others are none the worse
        with ThreadPoolExecutor(CONCURRENCY) as threads:
            return list(threads.map(_find_or_error, uris))


def _find_or_error(uri: str) -> ObjectInfo | StorageError | None:
    try:
        return find_object(uri)
    except StorageUnreachableError:
        raise
    except StorageError as error:
        return error


def read_object(uri: str) -> bytes:
    """Return an object's bytes.

    Args:
        uri: Taken literally.

    Raises:
        ObjectNotFoundError: It is not there.
        StorageError: It cannot be had.
    """
    location, name = split_object(uri)
    return location.read(name)


def split_object(uri: str) -> tuple[Location, str]:
    """Return the location that an object lies in, and its name there.

    Args:
        uri: Of an object, taken literally.

    Raises:
        ObjectNotFoundError: It names a bucket, which is no object.
    """
    parsed = parse_uri(uri)
    if not parsed.key:
        raise ObjectNotFoundError(f"{uri} names a bucket, not an object.")
    folder, _, name = parsed.uri.rpartition("/")
    return Location(folder), name
