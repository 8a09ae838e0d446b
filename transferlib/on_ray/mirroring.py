"""Runs in an object store: each node of a cluster works in a folder of its own, kept like the store's.

Where runs lie on a disk that all nodes see, or on this machine alone, nothing here does anything.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from transferlib.errors import RunFolderError
from transferlib.runs import STORAGE_VARIABLE, RunFolder
from transferlib.storage.uris import is_uri

if TYPE_CHECKING:
    from transferlib.storage.locations import Location
    from transferlib.training.worker import Worker


class KeptRun(Protocol):
    """The run of a job's own process, wherever it is kept."""

    def pull(self) -> None:
        """Bring here, now, what trials on other nodes have written."""

    def remove(self, path: Path) -> None:
        """Remove one file of the run, here and where it is kept; it need not be there."""


class _OnDisk:
    """A run on a disk that all its processes see: the folder is all there is."""

    def pull(self) -> None:
        """Do nothing: it is here."""

    def remove(self, path: Path) -> None:
        """Remove the file."""
        path.unlink(missing_ok=True)


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


@contextmanager
def driver_mirror(run: RunFolder) -> Iterator[KeptRun]:
    """Hold a run for the job's own process, like the store, for the length of a `with` block.

    Args:
        run: Its folder on this node, locked.

    Yields:
        The run as it is kept.

    Raises:
        RunFolderError: Another job writes the run, or there is no such run.
        StorageError: The store cannot be used.
    """
    store = store_of(run.run_id)
    if store is None:
        yield _OnDisk()
        return
    from transferlib.storage.driver_mirror import DriverMirror

    with DriverMirror(store, run) as mirror:
        yield mirror


def trial_mirror(run: RunFolder, trial_id: str) -> AbstractContextManager[object]:
    """Hold a trial for the process that writes it: what it goes on from comes here, what it makes goes to the store.

    Raises:
        RunFolderError: Another process on this node does not give the trial up.
        StorageError: The store cannot be used; at the end: something could not be stored.
    """
    store = store_of(run.run_id)
    if store is None:
        return nullcontext()
    from transferlib.storage.layout import LEASE
    from transferlib.storage.lease import read_lease
    from transferlib.storage.trial_mirror import TrialMirror

    lease = read_lease(store, LEASE)
    if lease is None:
        raise RunFolderError(f"{store.uri} has no lease: no job writes this run.")
    return TrialMirror(store, run, trial_id, attempt=lease.attempt)


@contextmanager
def rank_mirror(run: RunFolder, trial_id: str, worker: Worker) -> Iterator[None]:
    """Hold a trial for one rank: the first writes it, the others read what it has brought or stored."""
    store = store_of(run.run_id)
    if store is None:
        yield
    elif worker.rank == 0:
        with trial_mirror(run, trial_id):
            worker.barrier()
            yield
    else:
        from transferlib.storage.rank_mirror import RankMirror

        worker.barrier()
        with RankMirror(store, run, trial_id, rank=worker.rank):
            yield


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
