"""Runs in an object store: each node of a cluster works in a folder of its own, kept like the store's.

Where runs lie on a disk that all nodes see, or on this machine alone, nothing here does anything.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from transferlib.runs import STORAGE_VARIABLE, RunFolder
from transferlib.storage.uris import is_uri

if TYPE_CHECKING:
    from transferlib.storage.locations import Location


def store_of(run_id: str) -> Location | None:
    """Return where a run of this job lies in an object store; None where it lies in none."""
    storage = os.environ.get(STORAGE_VARIABLE, "")
    if not is_uri(storage):
        return None
    from transferlib.storage.locations import open_location

    return open_location(storage).child(run_id)


def node_folder(run_id: str) -> RunFolder:
    """Return where this job keeps a run of an object store on each node."""
    return RunFolder(Path(tempfile.gettempdir()) / f"transferlib-{os.getuid()}" / "runs" / run_id)


def driver_mirror(run: RunFolder) -> AbstractContextManager[object]:
    """Hold a run for the job's own process: alone to write it, and like the store, for the length of a `with` block.

    Raises:
        RunFolderError: Another job writes the run.
        StorageError: The store cannot be used.
    """
    store = store_of(run.run_id)
    if store is None:
        return nullcontext()
    from transferlib.storage.mirror import DriverMirror

    return DriverMirror(store, run)


def trial_mirror(run: RunFolder, trial_id: str, *, is_writer: bool = True) -> AbstractContextManager[object]:
    """Hold what a trial needs of a run on this node, and bring what it writes to the store, likewise.

    Args:
        run: Its folder on this node; made.
        trial_id: Of the trial.
        is_writer: False for the ranks that only read.

    Raises:
        StorageError: The store cannot be used; at the end: something could not be stored.
    """
    store = store_of(run.run_id)
    if store is None:
        return nullcontext()
    from transferlib.storage.mirror import TrialMirror

    return TrialMirror(store, run, trial_id, is_writer=is_writer)


def fetch_manifest(path: Path) -> None:
    """Bring a run's manifest to a node that renders images for it, where it is not there yet.

    Args:
        path: Of `manifest.parquet` in the run's folder on each node.
    """
    if path.exists():
        return
    store = store_of(path.parent.name)
    if store is not None:
        store.download(path.name, path)
