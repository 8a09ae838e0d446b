"""Fetch weights from an object store, once for each state of the object. Loads no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from transferlib.data.cache_dir import default_cache_dir
from transferlib.errors import ObjectNotFoundError, WeightsError
from transferlib.storage.objects import find_object, split_object

FOLDER = "weights"
"""In the cache folder."""
ATTEMPTS = 3
"""To fetch an object that is written anew meanwhile."""


def fetch_weights(uri: str, cache_dir: Path | None = None) -> Path:
    """Return a local file with an object's content as it is in the store now, fetched where it is not here yet.

    A file is named by the object's size and time, and appears by rename: what is here is whole. Earlier states of the
    object are removed.

    Args:
        uri: Of a .pth, .pt or .safetensors object.
        cache_dir: Root of the cache; None: the default one.

    Raises:
        WeightsError: It is not there, is empty, is written faster than it can be fetched, or the cache folder cannot be
            written.
        StorageError: The store cannot be used.
    """
    try:
        for _ in range(ATTEMPTS):
            if (path := _fetch(uri, cache_dir or default_cache_dir())) is not None:
                return path
    except ObjectNotFoundError as error:
        raise WeightsError(f"--weights {uri}: {error} Give another object, or put it there.") from None
    raise WeightsError(f"--weights {uri}: the object changed {ATTEMPTS} times while it was fetched. Try again later.")


def _fetch(uri: str, cache_dir: Path) -> Path | None:
    """Return the file, or None where the object changed meanwhile."""
    before = find_object(uri)
    if before is None:
        raise ObjectNotFoundError("there is no such object.")
    if before.size == 0:
        raise WeightsError(f"--weights {uri}: the object is empty. Put it there anew.")
    location, name = split_object(uri)
    folder = cache_dir / FOLDER / hashlib.sha256(uri.encode()).hexdigest()[:16]
    path = folder / f"{before.size}-{before.mtime_ns}" / name
    if path.is_file() and path.stat().st_size == before.size:
        return path
    location.download(name, path)
    if find_object(uri) != before or path.stat().st_size != before.size:
        path.unlink(missing_ok=True)
        return None
    _remove_others(folder, path)
    return path


def _remove_others(folder: Path, kept: Path) -> None:
    """Remove earlier states; a process that has one open keeps it until it closes it."""
    for other in folder.glob(f"*/{kept.name}"):
        if other != kept:
            other.unlink(missing_ok=True)


def check_object(uri: str) -> None:
    """Refuse weights that are not in the store, without fetching them.

    Raises:
        WeightsError: They are not there.
        StorageError: The store cannot be used.
    """
    if find_object(uri) is None:
        raise WeightsError(f"--weights {uri}: there is no such object. Give another object, or put it there.")
