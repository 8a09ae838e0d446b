"""A place for files: a prefix in an object store, or a folder; the same few verbs for both.

What is written appears whole or not at all: an object by its nature, a file by rename. Nothing here locks.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from transferlib.errors import StorageError
from transferlib.storage.connections import connect, no_such_bucket, storage_errors
from transferlib.storage.uris import KNOWN, is_plain_key, is_uri, parse_uri

if TYPE_CHECKING:
    from pyarrow import Buffer
    from pyarrow.fs import FileInfo, FileSystem

__all__ = ["Location", "ObjectInfo", "is_uri", "open_location"]

CHUNK_BYTES = 8 << 20
TEMPORARY = ".partial-"
"""How the names of half-written files begin, in a folder; never listed."""


class ObjectInfo(NamedTuple):
    """Tell one state of an object from another without reading it."""

    name: str
    """Relative to the location, with forward slashes."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Of the last write; object stores count whole seconds."""


class Tree(NamedTuple):
    """Hold what is below a prefix."""

    objects: list[ObjectInfo]
    folders: list[str]
    """Relative to the location; empty ones that have a marker included."""


@dataclass(frozen=True)
class Location:
    """Name a prefix in an object store or a folder; holds no connection, so it travels to any process.

    Every method raises StorageError (or one of its kinds) where the store cannot be used or a name leads out of it.
    """

    uri: str
    """s3://bucket/prefix, gs://bucket/prefix or an absolute path; no slash at its end."""

    @property
    def is_local(self) -> bool:
        """Say whether it is a folder."""
        return self.uri.startswith("/")

    @property
    def _filesystem(self) -> FileSystem:
        from pyarrow import fs

        return fs.LocalFileSystem() if self.is_local else connect(self.uri)

    def child(self, name: str) -> Location:
        """Return the location below this one; nothing is made.

        Args:
            name: Relative, with forward slashes.
        """
        return Location(self.uri_of(name))

    def uri_of(self, name: str) -> str:
        """Return the URI or path of an object.

        Args:
            name: Relative, with forward slashes; empty: the location itself.

        Raises:
            StorageError: The name leads out of the location, or would not come back as it is.
        """
        if name and (not is_plain_key(name) or "\0" in name):
            raise StorageError(f"{name!r} is no name below {self.uri}: no empty part, '.' or '..'.")
        return f"{self.uri.rstrip('/')}/{name}" if name else self.uri

    def info(self, name: str = "") -> ObjectInfo | None:
        """Return an object's size and time, or None where there is none of that name."""
        with self._at(name) as (filesystem, path):
            return object_info(filesystem.get_file_info(path), name)

    def exists(self, name: str) -> bool:
        """Say whether there is an object of that name; a folder or prefix is none."""
        return self.info(name) is not None

    def list(self, prefix: str = "", recursive: bool = True) -> list[ObjectInfo]:
        """Return the objects below, by name; a prefix that is not there has none. Folder markers are left out.

        Args:
            prefix: A folder below the location; names in the answer are relative to the location all the same.
            recursive: Go into folders.

        Raises:
            ObjectNotFoundError: The bucket is not there.
        """
        return self.tree(prefix, recursive).objects

    def tree(self, prefix: str = "", recursive: bool = True) -> Tree:
        """Return the objects below, as `list` does, and the folders, both by name.

        Args:
            prefix: As in `list`.
            recursive: As in `list`.

        Raises:
            ObjectNotFoundError: The bucket is not there.
        """
        from pyarrow import fs

        with self._at(prefix) as (filesystem, path):
            try:
                # Not allow_not_found: with it a bucket that is not there looks like an empty one.
                found = filesystem.get_file_info(fs.FileSelector(path, recursive=recursive))
            except FileNotFoundError:
                return Tree([], [])
        start = f"{path.rstrip('/')}/"
        before = f"{prefix}/" if prefix else ""
        named = [(before + one.path.removeprefix(start), one) for one in found]
        infos = [info for name, one in named if not _is_temporary(name) and (info := object_info(one, name))]
        folders = {name for name, one in named if one.type == fs.FileType.Directory}
        return Tree(sorted(infos), sorted(folders))

    def read(self, name: str) -> bytes:
        """Return an object's bytes.

        Raises:
            ObjectNotFoundError: There is none of that name.
        """
        with self._at(name) as (filesystem, path), filesystem.open_input_file(path) as file:
            return bytes(file.read())

    def write(self, name: str, data: bytes) -> None:
        """Write an object, over what was there."""
        import pyarrow as pa

        with self._at(name) as (filesystem, path):
            self._put(filesystem, path, pa.py_buffer(data))

    def upload(self, name: str, path: Path) -> None:
        """Write a local file as an object.

        Args:
            name: Of the object.
            path: Of the file; it must not change meanwhile.

        Raises:
            StorageError: The file is not there or cannot be read, or the store cannot be used.
        """
        import pyarrow as pa

        with storage_errors(str(path)):
            is_empty = path.stat().st_size == 0  # nothing to map
            source = pa.py_buffer(b"") if is_empty else pa.memory_map(str(path)).read_buffer()
        with self._at(name) as (filesystem, target):
            self._put(filesystem, target, source)

    def download(self, name: str, path: Path) -> None:
        """Fetch an object into a local file, in pieces and by rename.

        Args:
            name: Of the object.
            path: Of the file; its folder is made.

        Raises:
            ObjectNotFoundError: There is none of that name.
            StorageError: Less came than the store said there is.
        """
        with self._at(name) as (filesystem, source), filesystem.open_input_file(source) as file:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
            try:
                with open(temporary, "wb") as target:
                    shutil.copyfileobj(file, target, CHUNK_BYTES)
                if (came := temporary.stat().st_size) != file.size():
                    raise StorageError(f"{self.uri_of(name)}: {came:,} of {file.size():,} bytes came. Try again.")
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is removed already."""
        with self._at(name) as (filesystem, path):
            try:
                filesystem.delete_file(path)
            except FileNotFoundError:
                return

    @contextmanager
    def _at(self, name: str) -> Iterator[tuple[FileSystem, str]]:
        uri = self.uri_of(name)
        with storage_errors(uri):
            yield self._filesystem, uri if self.is_local else parse_uri(uri).path

    def _put(self, filesystem: FileSystem, path: str, data: Buffer) -> None:
        if not self.is_local:
            _out_of_the_way_of_signals(lambda: _put_object(filesystem, path, data))
            return
        folder = Path(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            _put_object(filesystem, str(temporary), data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _put_object(filesystem: FileSystem, path: str, data: Buffer) -> None:
    with filesystem.open_output_stream(path) as file:
        file.write(data)


def _out_of_the_way_of_signals(put: Callable[[], None]) -> None:
    """Call in a thread that Ctrl-C does not reach: a stream closed before its end would be a whole, shorter object."""
    if threading.current_thread() is not threading.main_thread():
        put()
        return
    with ThreadPoolExecutor(1) as thread:
        thread.submit(put).result()


def open_location(uri: str) -> Location:
    """Return a place, after one or two requests that tell whether it can be had.

    Args:
        uri: s3://bucket/prefix, gs://bucket/prefix or an absolute path; neither prefix nor folder needs to exist.

    Raises:
        ObjectNotFoundError: The bucket is not there.
        StorageUnreachableError: The store does not answer.
        StorageError: Access is refused, the URI holds credentials, or the path is not absolute.
        UsageError: It is a URI of another kind.
    """
    if not is_uri(uri):
        if not uri.startswith("/"):
            raise StorageError(f"{uri!r} is no absolute path. {KNOWN}")
        return Location(os.path.normpath(uri))
    parsed = parse_uri(uri)
    location = Location(parsed.uri)
    with storage_errors(location.uri):
        filesystem = connect(location.uri)
        if _is_missing(filesystem, parsed.path) and (not parsed.key or _is_missing(filesystem, parsed.bucket)):
            raise no_such_bucket(f"{parsed.scheme}://{parsed.bucket}")
    return location


def _is_missing(filesystem: FileSystem, path: str) -> bool:
    from pyarrow import fs

    return bool(filesystem.get_file_info(path).type == fs.FileType.NotFound)


def object_info(found: FileInfo, name: str) -> ObjectInfo | None:
    """Return what pyarrow found under a name, or None where it is no object.

    Args:
        found: Of pyarrow.
        name: To call it.
    """
    return ObjectInfo(name, int(found.size), int(found.mtime_ns)) if found.is_file else None


def _is_temporary(name: str) -> bool:
    return name.rpartition("/")[2].startswith(TEMPORARY)
