"""Single files between a folder and a store: only what changed goes up, only what changed comes down."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from transferlib.errors import ObjectNotFoundError
from transferlib.storage.layout import Listing
from transferlib.storage.locations import TEMPORARY, Location, ObjectInfo

SMALL_BYTES = 4 << 20
SETTLED_S = 2.0
"""Stores tell the time of a write in whole seconds: two writes of one size within a second look like one."""
_UNSETTLED_NS = 1
"""Added to the time of a local copy that may be older than what the store holds under the same size and time."""


class _Signature(NamedTuple):
    """Tell one state of a local file from another without reading it."""

    mtime_ns: int
    size: int
    inode: int


class Outgoing:
    """Send files that changed since they were last sent; any thread may.

    Args:
        store: Where to.
        root: Folder that names are relative to.
    """

    def __init__(self, store: Location, root: Path) -> None:
        self._store = store
        self._root = root
        self._sent: dict[str, _Signature] = {}
        self._lock = threading.Lock()

    def changed(self, names: Iterable[str]) -> list[str]:
        """Return those of the files that are not in the store as they are here."""
        return [name for name in names if (now := self._signature(name)) is not None and now != self._sent.get(name)]

    def take_as_sent(self, names: Iterable[str]) -> None:
        """Take files for stored as they are: they came from there."""
        self._sent |= {name: now for name in names if (now := self._signature(name)) is not None}

    def push(self, names: Iterable[str]) -> None:
        """Send those that changed, in the order given.

        A file that grows meanwhile is sent as far as it was, and again the next time.

        Raises:
            StorageError: The store cannot be used; the files before this one are there.
        """
        with self._lock:
            for name in self.changed(names):
                signature = self._signature(name)
                # Replaced or removed since: what is there now comes next time.
                with contextlib.suppress(FileNotFoundError):
                    if signature is not None and self._send(name, signature.size):
                        self._sent[name] = signature

    def _send(self, name: str, size: int) -> bool:
        path = self._root / name
        if size <= SMALL_BYTES:
            self._store.write(name, path.read_bytes())
            return True
        try:
            self._store.upload(name, path)
        except ObjectNotFoundError:
            if path.exists():
                raise
            return False
        return True

    def _signature(self, name: str) -> _Signature | None:
        try:
            stat = (self._root / name).stat()
        except FileNotFoundError:
            return None
        return _Signature(stat.st_mtime_ns, stat.st_size, stat.st_ino)


class Incoming:
    """Fetch objects that changed since they were last fetched, by this process or one before it.

    A local copy carries the time that the store told, so that the folder itself says what it holds.

    Args:
        store: Where from.
        root: Folder that names are relative to.
        now: Seconds, never going back.
    """

    def __init__(self, store: Location, root: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._root = root
        self._now = now
        self._seen: dict[str, tuple[ObjectInfo, float]] = {}
        self._fetched: dict[str, tuple[ObjectInfo, float]] = {}

    def pull(self, infos: Iterable[ObjectInfo], listing: Listing) -> list[str]:
        """Fetch what changed, in the order given; one that is gone by now is left out.

        Args:
            infos: What to fetch.
            listing: All that was listed with it: its newest time is the store's own clock.

        Returns:
            Names fetched.

        Raises:
            StorageError: The store cannot be used.
        """
        newest_ns = max((info.mtime_ns for info in listing.values()), default=0)
        fetched = []
        for info in infos:
            is_settled = self._is_settled(info, newest_ns)
            if self._is_here(info, is_settled=is_settled):
                continue
            with contextlib.suppress(ObjectNotFoundError):
                fetch(self._store, info.name, self._root, info.mtime_ns + (0 if is_settled else _UNSETTLED_NS))
                self._fetched[info.name] = (info, self._now())
                fetched.append(info.name)
        return fetched

    def _is_settled(self, info: ObjectInfo, newest_ns: int) -> bool:
        """Say whether an object of this size and time can no longer become another one of the same."""
        seen = self._seen.get(info.name)
        if seen is None or seen[0] != info:
            seen = self._seen[info.name] = (info, self._now())
        return newest_ns - info.mtime_ns > SETTLED_S * 1e9 or self._now() - seen[1] > SETTLED_S

    def _is_here(self, info: ObjectInfo, *, is_settled: bool) -> bool:
        try:
            stat = (self._root / info.name).stat()
        except FileNotFoundError:
            return False
        if (stat.st_size, stat.st_mtime_ns) == (info.size, info.mtime_ns):
            return True
        last = self._fetched.get(info.name)
        is_same = last is not None and last[0] == info and stat.st_mtime_ns == info.mtime_ns + _UNSETTLED_NS
        return is_same and not is_settled


def fetch(store: Location, name: str, root: Path, mtime_ns: int | None = None) -> Path:
    """Fetch one object into a folder by rename.

    Args:
        store: Where from.
        name: Of the object, and of the file below `root`.
        root: The folder.
        mtime_ns: Time to give the file; None: now.

    Returns:
        The file.

    Raises:
        ObjectNotFoundError: There is none of that name.
        StorageError: The store cannot be used.
    """
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        store.download(name, temporary)
        if mtime_ns is not None:
            os.utime(temporary, ns=(mtime_ns, mtime_ns))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
