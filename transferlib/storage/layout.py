"""Which process writes which file of a run in a store, in which order, and what makes a set of them whole.

    spec.yaml                       the client's, written last: a run without it does not exist
    status.json                     the driver's, written last: what it tells of is there
    trials/<t>/result.json          the trial's, written last: model and predictions are there; the driver's where no
                                    process trains the trial
    trials/<t>/last/<c>/MANIFEST.json   the trial's, written last: the checkpoint is whole
    lease.json, trials/<t>/lease.json   who may write

A checkpoint has the name in the store that it has in its folder. Saved again at the same position, it becomes
`<c>.2` there, so that nothing a manifest names is ever written over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from transferlib.errors import RunFolderError
from transferlib.records import TRIAL_ID
from transferlib.storage.locations import Location, ObjectInfo
from transferlib.storage.uris import is_plain_key

LEASE = "lease.json"
STOP = "STOP"
SPEC = "spec.yaml"
STATUS = "status.json"
RESULT = "result.json"
MANIFEST = "MANIFEST.json"
CHECKPOINTS = "last"

CLIENT_FILES = ("plan.json", "RESUME_CHANGED", SPEC)
"""What the client writes, in this order."""
SETTLED_FILES = (SPEC, "plan.json", "prepared.json", "environment.json", "manifest.parquet")
"""What a trial reads of its run."""
_ONLY_HERE = frozenset({"lock", STOP, LEASE, "job.json", *CLIENT_FILES})
_LARGE = frozenset({"manifest.parquet", "predictions.parquet"})
_CLIENT_LOGS = frozenset({"log/messages.txt", "log/timeline.jsonl"})
_CLIENT_TRIAL_FILES = frozenset({"trial.json", "progress.json", RESULT, "metrics.csv"})
_DRIVER_TRIAL_FILE = re.compile(r"progress\.json|metrics\.csv|result\.json|predictions-[a-z]+\.parquet")
_TRIAL_FILE = re.compile(r"trials/(?P<trial>[^/]+)/(?P<file>[^/]+)")
_TRIAL_LOG = re.compile(rf"log/{TRIAL_ID.pattern}(\.rank\d+)?\.log")
_CHECKPOINT_FILE = re.compile(
    r"trials/[^/]+/last/(?P<folder>(?P<name>e\d+-s\d+)(\.(?P<version>[1-9]\d*))?)/(?P<file>[^/]+)"
)

Listing = Mapping[str, ObjectInfo]
"""Objects by name."""


def list_objects(store: Location, prefix: str = "", *, recursive: bool = True) -> dict[str, ObjectInfo]:
    """Return the objects of a run by name, in one listing; keys that are no relative paths are left out.

    Args:
        store: Of the run.
        prefix: Folder to list; empty: the whole run.
        recursive: With all that is below.
    """
    return {info.name: info for info in store.list(prefix, recursive) if is_plain_key(info.name)}


def check_name(name: str) -> None:
    """Refuse a name that leads out of a run folder.

    Raises:
        RunFolderError: It is absolute, or has an empty part, "." or "..".
    """
    if not is_plain_key(name):
        raise RunFolderError(f"{name!r} is no file of a run: give a path relative to the run folder, without '..'.")


def trial_prefix(trial_id: str) -> str:
    """Return the folder of a trial, relative to the run."""
    return f"trials/{trial_id}"


def driver_files(run: Path) -> list[str]:
    """Return the files that the driver writes, as they are in its folder, `status.json` last."""
    found = [path for folder in (run, run / "log") for path in _files(folder)]
    found += [path / "trial.json" for path in (run / "trials").glob("*") if (path / "trial.json").is_file()]
    names = [path.relative_to(run).as_posix() for path in found]
    mine = [name for name in names if name not in _ONLY_HERE and not _TRIAL_LOG.fullmatch(name)]
    return _last(sorted(mine), STATUS)


def trial_files(run: Path, trial_id: str) -> list[str]:
    """Return the files that a trial's first process writes beside its checkpoints, `result.json` last."""
    prefix = trial_prefix(trial_id)
    names = [path.name for path in _files(run / prefix) if path.name not in ("trial.json", LEASE)]
    log = [name for name in (trial_log(trial_id),) if (run / name).is_file()]
    return _last(sorted(log + [f"{prefix}/{name}" for name in names]), f"{prefix}/{RESULT}")


def trial_log(trial_id: str, rank: int = 0) -> str:
    """Return the name of a trial process's own log."""
    return f"log/{trial_id}.log" if rank == 0 else f"log/{trial_id}.rank{rank}.log"


def client_pulls(listing: Listing) -> list[ObjectInfo]:
    """Return what the client mirrors: small files, `status.json` last."""
    return [listing[name] for name in _last(sorted(filter(_is_for_client, listing)), STATUS)]


def _is_for_client(name: str) -> bool:
    if found := _TRIAL_FILE.fullmatch(name):
        return found["file"] in _CLIENT_TRIAL_FILES
    if "/" in name:
        return name in _CLIENT_LOGS
    return name not in _LARGE and (name not in _ONLY_HERE or name in CLIENT_FILES)


def driver_pulls(listing: Listing) -> dict[str, list[ObjectInfo]]:
    """Return what trials on other nodes tell the driver, by trial, `result.json` last."""
    found: dict[str, list[str]] = {}
    for name in sorted(listing):
        parts = _TRIAL_FILE.fullmatch(name)
        if parts and _DRIVER_TRIAL_FILE.fullmatch(parts["file"]):
            found.setdefault(parts["trial"], []).append(name)
    return {
        trial: [listing[name] for name in _last(names, f"{trial_prefix(trial)}/{RESULT}")]
        for trial, names in found.items()
    }


def driver_restores(listing: Listing) -> list[ObjectInfo]:
    """Return what a driver finds again of what the one before it wrote, and what the client wrote."""
    return [info for name, info in listing.items() if _is_of_run(name)]


def _is_of_run(name: str) -> bool:
    if found := _TRIAL_FILE.fullmatch(name):
        return found["file"] == "trial.json"
    if "/" in name:
        return name.startswith("log/") and name.count("/") == 1 and not _TRIAL_LOG.fullmatch(name)
    return name not in _ONLY_HERE or name in CLIENT_FILES


def trial_restores(listing: Listing, trial_id: str) -> list[ObjectInfo]:
    """Return what a trial finds again beside its checkpoints, `result.json` last.

    A model that no result vouches for is left out: the trial makes it again.
    """
    prefix = trial_prefix(trial_id)
    names = [
        name
        for name in sorted(listing)
        if name == trial_log(trial_id) or (name.rpartition("/")[0] == prefix and not name.endswith(f"/{LEASE}"))
    ]
    if f"{prefix}/{RESULT}" not in listing:
        names = [name for name in names if not name.endswith(".safetensors")]
    return [listing[name] for name in _last(names, f"{prefix}/{RESULT}")]


class StoredName(NamedTuple):
    """Name one state of a checkpoint in a store."""

    name: str
    """As its folder is called where it was written."""
    version: int

    @property
    def folder(self) -> str:
        """Return its folder's name in the store."""
        return self.name if self.version == 1 else f"{self.name}.{self.version}"


@dataclass(frozen=True)
class StoredCheckpoints:
    """Hold what a listing tells of a trial's checkpoints.

    Attributes:
        whole: Those with a manifest, for each name the newest version first.
        files: Names of all files by folder, leftovers of uploads that were cut included.
    """

    whole: dict[str, list[StoredName]]
    files: dict[StoredName, list[str]]


def stored_checkpoints(listing: Iterable[str]) -> StoredCheckpoints:
    """Return a trial's checkpoints by the names of its objects."""
    files: dict[StoredName, list[str]] = {}
    for key in listing:
        if found := _CHECKPOINT_FILE.fullmatch(key):
            files.setdefault(StoredName(found["name"], int(found["version"] or 1)), []).append(found["file"])
    whole: dict[str, list[StoredName]] = {}
    for stored in sorted(files, reverse=True):
        if MANIFEST in files[stored]:
            whole.setdefault(stored.name, []).append(stored)
    return StoredCheckpoints(whole, files)


def upload_order(names: Iterable[str], best: str | None) -> list[str]:
    """Return checkpoints in the order in which they go up: the newest first, but not before the best that it names.

    Args:
        names: Of checkpoints, which sort by position.
        best: The one that the newest needs beside it.
    """
    newest_first = sorted(names, reverse=True)
    if best in newest_first[1:]:
        newest_first.remove(best)
        newest_first.insert(0, best)
    return newest_first


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.is_file() and not path.name.startswith(".")]


def _last(names: list[str], last: str) -> list[str]:
    return [*(name for name in names if name != last), *(name for name in names if name == last)]
