"""Runs in an object store: each node of a cluster works in a folder of its own, kept like the store's.

Where runs lie on a disk that all nodes see, or on this machine alone, nothing here does anything.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from transferlib.errors import RunFolderError
from transferlib.runs import STORAGE_VARIABLE, RunFolder, has_content, link_or_copy, write_atomic
from transferlib.storage.uris import is_uri

if TYPE_CHECKING:
    from transferlib.storage.locations import Location
    from transferlib.training.worker import Worker

logger = logging.getLogger(__name__)


class KeptRun(Protocol):
    """The run of a job's own process, wherever it is kept."""

    def pull(self) -> None:
        """Bring here, now, what trials on other nodes have written."""

    def has(self, path: Path) -> bool:
        """Say whether a file of the run is where it is kept, and is not empty."""

    def remove(self, path: Path) -> None:
        """Remove one file of the run, here and where it is kept; it need not be there."""

    def copy(self, source: Path, target: Path) -> None:
        """Keep one file of the run under a second name, here and where it is kept."""

    def write(self, path: Path, text: str) -> None:
        """Write one small file of a trial that no process trains, here and where the run is kept."""


class OnDisk:
    """A run on a disk that all its processes see: the folder is all there is."""

    def pull(self) -> None:
        """Do nothing: it is here."""

    def has(self, path: Path) -> bool:
        """Say whether the file is there."""
        return has_content(path)

    def remove(self, path: Path) -> None:
        """Remove the file."""
        path.unlink(missing_ok=True)

    def copy(self, source: Path, target: Path) -> None:
        """Give the file a second name."""
        link_or_copy(source, target)

    def write(self, path: Path, text: str) -> None:
        """Write the file."""
        write_atomic(path, text)


def store_of(run_id: str) -> Location | None:
    """Return where a run of this job lies in an object store; None where it lies in none."""
    storage = os.environ.get(STORAGE_VARIABLE, "")
    if not is_uri(storage):
        return None
    from transferlib.storage.locations import open_location

    return open_location(storage).child(run_id)


def node_folder(run_id: str) -> RunFolder:
    """Return where this job keeps a run of an object store on each node."""
    return RunFolder(_node_root() / "runs" / run_id)


def _node_root() -> Path:
    return Path(tempfile.gettempdir()) / f"transferlib-{os.getuid()}"


def make_node_root() -> None:
    """Make the folder above `node_folder` on this node, for this user alone; on every node before anything is put in.

    Raises:
        RunFolderError: Its name, which anybody can guess, is taken by another user, a link or a file.
    """
    root = _node_root()
    try:
        root.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        found = os.lstat(root)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            what = "a link" if stat.S_ISLNK(found.st_mode) else "a folder" if stat.S_ISDIR(found.st_mode) else "a file"
            raise RunFolderError(
                f"{root} on {os.uname().nodename} is {what} of user {found.st_uid}. Runs of an object store are kept "
                f"there, in a folder of user {os.getuid()} alone. Remove it, or set TMPDIR for Ray's nodes."
            ) from None
    root.chmod(0o700)


def remove_node_folder(run: RunFolder) -> None:
    """Remove a run of an object store from this node once its job is done; a run on a disk is left as it is.

    Args:
        run: As this node has it; all of it is in the store. One that a newer job holds is left alone.
    """
    if not is_uri(os.environ.get(STORAGE_VARIABLE, "")):
        return
    aside = run.path.with_name(f".{run.run_id}.{os.getpid()}")
    try:
        with run.locked():
            run.path.rename(aside)
    except (RunFolderError, OSError) as error:
        logger.warning("%s stays on this node: %s", run.path, error)
    shutil.rmtree(aside, ignore_errors=True)


def _store_for_node(run: RunFolder) -> Location | None:
    """Return where a run is in an object store, once this node has a place for it; None where it is in none."""
    store = store_of(run.run_id)
    if store is not None:
        make_node_root()
    return store


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
    store = _store_for_node(run)
    if store is None:
        yield OnDisk()
        return
    from transferlib.storage.driver_mirror import DriverMirror

    with DriverMirror(store, run) as mirror:
        yield mirror


@contextmanager
def trial_mirror(run: RunFolder, trial_id: str) -> Iterator[Path]:
    """Hold a trial for the process that writes it: what it goes on from comes here, what it makes goes to the store.

    Yields:
        The file that tells this process to stop: the run's, or one that also appears when a newer start has the trial.

    Raises:
        RunFolderError: Another process on this node does not give the trial up.
        LeaseLostError: At the end: a newer start has taken the trial over, and nothing more was stored.
        StorageError: The store cannot be used; at the end: something could not be stored.
    """
    store = _store_for_node(run)
    if store is None:
        yield run.stop_flag
        return
    from transferlib.storage.layout import LEASE
    from transferlib.storage.lease import read_lease
    from transferlib.storage.trial_mirror import TrialMirror

    lease = read_lease(store, LEASE)
    if lease is None:
        raise RunFolderError(f"{store.uri} has no lease: no job writes this run.")
    with TrialMirror(store, run, trial_id, attempt=lease.attempt) as mirror:
        yield mirror.stop_flag


@contextmanager
def ended_when_superseded() -> Iterator[None]:
    """Let a trial that a newer start has taken over end like one that was stopped: Ray must not start it again."""
    from transferlib.storage.lease import LeaseLostError

    try:
        yield
    except LeaseLostError as error:
        logger.warning("Stopped: %s", error)


@contextmanager
def rank_mirror(run: RunFolder, trial_id: str, worker: Worker) -> Iterator[Path]:
    """Hold a trial for one rank: the first writes it, the others read what it has brought or stored.

    Yields:
        The file that tells this rank to stop.

    Raises:
        As `trial_mirror`.
    """
    store = _store_for_node(run)
    if store is None:
        yield run.stop_flag
    elif worker.rank == 0:
        with trial_mirror(run, trial_id) as stop_flag:
            worker.barrier()
            yield stop_flag
    else:
        from transferlib.storage.rank_mirror import RankMirror

        worker.barrier()
        with RankMirror(store, run, trial_id, rank=worker.rank) as mirror:
            yield mirror.stop_flag


def fetch_manifest(path: Path) -> None:
    """Bring a run's manifest to a node that renders images for it, where it is not there yet.

    Args:
        path: Of `manifest.parquet` in the run's folder on each node.
    """
    if path.exists():
        return
    store = _store_for_node(RunFolder(path.parent))
    if store is not None:
        store.download(path.name, path)
