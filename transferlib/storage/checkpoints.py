"""A trial's checkpoints in a store: whole or not there, like those in its folder, and never more of them than there.

Parts go up first and the manifest last. A checkpoint is sent from hard links, so that one that training prunes in the
meantime still gets there: a store slower than two epochs would never have a whole one otherwise.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transferlib.errors import ObjectNotFoundError
from transferlib.storage.files import fetch
from transferlib.storage.layout import (
    CHECKPOINTS,
    MANIFEST,
    Listing,
    StoredName,
    stored_checkpoints,
    trial_prefix,
    upload_order,
)
from transferlib.storage.locations import Location

logger = logging.getLogger("transferlib.storage")

_OUTBOX = ".sending"
_FETCHING = ".fetching"
_CHECKPOINT = "e*-s*[0-9]"

_Identity = tuple[int, int]
"""Inode and time of a manifest: another save at the same position has another."""


class CheckpointCopies:
    """Keep a trial's checkpoints in a store beside those in its folder. One thread at a time uses it.

    Args:
        store: Of the run.
        run: The run's folder here.
        trial_id: Which trial.
        guard: Raises LeaseLostError where this process may write no more; asked before every commit.
    """

    def __init__(self, store: Location, run: Path, trial_id: str, guard: Callable[[], None]) -> None:
        self._store = store
        self._prefix = f"{trial_prefix(trial_id)}/{CHECKPOINTS}"
        self._folder = run / self._prefix
        self._outbox = run / trial_prefix(trial_id) / _OUTBOX
        self._guard = guard
        self._stored: dict[str, tuple[StoredName, _Identity | None]] = {}
        """By name: what is whole in the store, and which local state that is; None: a state that is not here."""
        self._files: dict[StoredName, list[str]] = {}
        """What is in the store, leftovers included."""

    def pull(self, listing: Listing) -> None:
        """Fetch the whole checkpoints that are not whole here; what is neither stays away.

        Args:
            listing: Of the run, or of the trial.

        Raises:
            StorageError: The store cannot be used.
        """
        shutil.rmtree(self._outbox, ignore_errors=True)
        found = stored_checkpoints(listing)
        self._files = dict(found.files)
        for name, versions in sorted(found.whole.items()):
            here = self._folder / name
            if here.exists() and (problem := find_damage(here)) is None:
                self._stored[name] = (versions[0], _identity(here))
                continue
            if here.exists():
                logger.warning("%s: %s It is fetched again from %s.", here, problem, self._store.uri)
            for stored in versions:
                if self._fetch(stored):
                    self._stored[name] = (stored, _identity(here))
                    break

    def _fetch(self, stored: StoredName) -> bool:
        source = f"{self._prefix}/{stored.folder}"
        temporary = self._folder / f"{_FETCHING}-{stored.folder}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            place = self._store.child(source)
            names = sorted(_facts(fetch(place, MANIFEST, temporary)))
            for name in names:
                fetch(place, name, temporary)
            if problem := find_damage(temporary):
                raise ValueError(problem)
            shutil.rmtree(self._folder / stored.name, ignore_errors=True)
            os.rename(temporary, self._folder / stored.name)
        except (ObjectNotFoundError, ValueError) as error:
            logger.warning("%s cannot serve: %s", self._store.uri_of(source), error)
            return False
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return True

    def is_due(self) -> bool:
        """Say whether the store has not what the folder has."""
        here = self._here()
        return bool(here) and (self._unsent(here) != [] or any(name not in here for name in self._stored))

    def push(self) -> None:
        """Send the checkpoints that the store has not, then remove there what was pruned here.

        Raises:
            LeaseLostError: Another process writes this trial now.
            StorageError: The store cannot be used; what was whole there still is.
        """
        here = self._here()
        if not here:
            return
        for name in upload_order(self._unsent(here), _best(self._folder / max(here))):
            self._send(name)
        if not self._is_stored(max(here)):
            return
        kept = {stored for name, (stored, _) in self._stored.items() if name in here}
        for stored in [stored for stored in self._files if stored not in kept]:
            self._remove(stored)

    def drop(self) -> None:
        """Remove all checkpoints of a trial whose result is stored."""
        for stored in list(self._files):
            self._remove(stored)

    def _here(self) -> dict[str, _Identity]:
        found = {path.name: _identity(path) for path in self._folder.glob(_CHECKPOINT)}
        return {name: identity for name, identity in found.items() if identity is not None}

    def _unsent(self, here: dict[str, _Identity]) -> list[str]:
        return [name for name, identity in here.items() if self._stored.get(name, (None, None))[1] != identity]

    def _is_stored(self, name: str) -> bool:
        return self._stored.get(name, (None, None))[1] is not None

    def _send(self, name: str) -> None:
        try:
            identity = self._link(name)
            if identity is None:
                return
            names = sorted(_facts(self._outbox / MANIFEST))
            before = self._stored.get(name)
            target = StoredName(name, 1 if before is None else before[0].version + 1)
            folder = f"{self._prefix}/{target.folder}"
            self._guard()
            self._files[target] = [*names, MANIFEST]
            for part in names:
                self._store.upload(f"{folder}/{part}", self._outbox / part)
            self._guard()
            self._store.write(f"{folder}/{MANIFEST}", (self._outbox / MANIFEST).read_bytes())
            self._stored[name] = (target, identity)
            if before is not None:
                self._remove(before[0])
        finally:
            shutil.rmtree(self._outbox, ignore_errors=True)

    def _link(self, name: str) -> _Identity | None:
        """Link a checkpoint's files into the outbox; None: it was pruned or replaced meanwhile."""
        source = self._folder / name
        shutil.rmtree(self._outbox, ignore_errors=True)
        self._outbox.mkdir(parents=True)
        try:
            os.link(source / MANIFEST, self._outbox / MANIFEST)
            for part in _facts(self._outbox / MANIFEST):
                os.link(source / part, self._outbox / part)
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning("%s is not sent: %s", source, error)
            return None
        identity = _identity(self._outbox)
        return identity if identity == _identity(source) else None

    def _remove(self, stored: StoredName) -> None:
        """Remove the manifest first: without it the rest is not there."""
        self._guard()
        folder = f"{self._prefix}/{stored.folder}"
        for name in sorted(self._files.get(stored, []), key=lambda name: name != MANIFEST):
            self._store.delete(f"{folder}/{name}")
        self._files.pop(stored, None)
        if self._stored.get(stored.name, (None, None))[0] == stored:
            del self._stored[stored.name]


def find_damage(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint's folder, held against its manifest; None: nothing.

    Args:
        folder: Of the checkpoint.
    """
    try:
        facts = _facts(folder / MANIFEST)
        for name, fact in facts.items():
            with open(folder / name, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if (file.tell(), digest) != (fact["bytes"], fact["sha256"]):
                    return f"{name} is not what {MANIFEST} says."
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _facts(manifest: Path) -> dict[str, dict[str, Any]]:
    """Return what a manifest says of each file.

    Raises:
        ValueError: It is none.
    """
    try:
        facts: dict[str, dict[str, Any]] = json.loads(manifest.read_bytes())["files"]
        is_plain = all(Path(name).name == name and {"bytes", "sha256"} <= fact.keys() for name, fact in facts.items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} cannot be read: {type(error).__name__}: {error}.") from None
    if not is_plain:
        raise ValueError(f"{MANIFEST} names what are no files of a checkpoint.")
    return facts


def _identity(folder: Path) -> _Identity | None:
    try:
        stat = (folder / MANIFEST).stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _best(checkpoint: Path) -> str | None:
    """Return the name of the checkpoint of the best epoch, by what a checkpoint says."""
    try:
        best = json.loads((checkpoint / "state.json").read_bytes())["best"]
        return None if best is None else "e{:05d}-s{:06d}".format(*best["position"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None  # pruned meanwhile, or damaged: then there is no order to keep
