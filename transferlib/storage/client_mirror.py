"""The client's side of a run in a store: it brings the run there, looks at it, and asks it to stop."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from transferlib.errors import ObjectNotFoundError, RunFolderError
from transferlib.runs import RunFolder, write_atomic
from transferlib.storage.files import Incoming, fetch
from transferlib.storage.layout import CLIENT_FILES, SPEC, STATUS, STOP, check_name, client_pulls, list_objects
from transferlib.storage.locations import Location

STATUS_TRIES = 3
"""Looks at a status that is being replaced, before the next one is waited for."""


class ClientMirror:
    """Keep a client's run folder beside the run in a store: small files only, until one asks for more.

    Args:
        location: Of the run in the store: the storage root's child of the run's id.
        run: The client's folder of the run.
    """

    def __init__(self, location: Location, run: RunFolder) -> None:
        self._store = location
        self._run = run
        self._incoming = Incoming(location, run.path)

    def push_new_run(self) -> None:
        """Bring what the client wrote into the store, `spec.yaml` last: with it the run exists. Also for a resume.

        The status goes with it, so that nobody takes how an earlier attempt ended for how this one stands.

        Raises:
            StorageError: The store cannot be used; a new run does not exist there then.
        """
        for name in (STATUS, *CLIENT_FILES):
            path = self._run.path / name
            if path.exists():
                self._store.write(name, path.read_bytes())
            else:
                self._store.delete(name)

    def pull(self, also: Collection[str] = ()) -> list[str]:
        """Fetch the small files that changed; one listing and the status, however many trials there are.

        The status is read before the listing and shown after everything else: what it tells of is here by then.

        Args:
            also: Files of any size to fetch too, once they are there and when they changed.

        Returns:
            Names of files that changed.

        Raises:
            RunFolderError: There is no such run in the store, or it is not whole there.
            StorageError: The store cannot be used.
        """
        status = self._read_status()
        listing = list_objects(self._store)
        if SPEC not in listing:
            raise RunFolderError(
                f"{self._store.uri} holds no run: {SPEC}, written last, is not there. Check --storage and the run's id."
            )
        self._run.log.mkdir(parents=True, exist_ok=True)
        wanted = {info.name: info for info in client_pulls(listing) if info.name != STATUS}
        wanted |= {name: listing[name] for name in also if name in listing}
        changed = self._incoming.pull(wanted.values(), listing)
        if status is not None and status != _bytes_of(self._run.status):
            write_atomic(self._run.status, status)
            changed.append(STATUS)
        return changed

    def _read_status(self) -> bytes | None:
        """Return `status.json` as the store has it; None where there is none, or none that is whole.

        A store's reader asks for the size first, so an object that the driver replaces in between comes cut, or with
        bytes of nobody behind it. It is read again, and else taken at the next look.
        """
        for _ in range(STATUS_TRIES):
            try:
                status = self._store.read(STATUS)
            except ObjectNotFoundError:
                return None
            try:
                json.loads(status)
            except ValueError:
                continue
            return status
        return None

    def ask_to_stop(self) -> None:
        """Ask the job to stop: driver and trials see it within two seconds.

        Raises:
            StorageError: The store cannot be used.
        """
        self._store.write(STOP, b"")

    def clear_stop(self) -> None:
        """Take the request to stop back, before a run is resumed.

        Raises:
            StorageError: The store cannot be used.
        """
        self._store.delete(STOP)
        self._run.stop_flag.unlink(missing_ok=True)

    def fetch(self, name: str) -> Path:
        """Fetch one file of any size, e.g. "trials/<trial>/best.safetensors" or "log/<trial>.log".

        Args:
            name: Relative to the run folder.

        Returns:
            The file in the client's run folder.

        Raises:
            RunFolderError: The name leads out of the run.
            ObjectNotFoundError: The run has no such file, or not yet.
            StorageError: The store cannot be used.
        """
        check_name(name)
        return fetch(self._store, name, self._run.path)


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
