"""What one reading of a file tells: its content's hash, its size as an image, or why it is none."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from transferlib.data.decode import BadImageError, Decoded, Limits, decode_image
from transferlib.data.looks import Look, look_at, remarks
from transferlib.errors import StorageError, StorageUnreachableError
from transferlib.storage.locations import ObjectInfo
from transferlib.storage.objects import CONCURRENCY, find_objects, is_object, read_object


@dataclass(frozen=True)
class ImageFacts:
    """Hold what is known of one file."""

    sha256: str
    """Of the file's bytes, hexadecimal; empty where they could not be read."""
    width: int
    """Of the image as it is to be seen (after EXIF orientation), pixels; 0 where the header could not be read."""
    height: int
    """As width."""
    reason: str = ""
    """Why it cannot serve as an image; empty: it can."""
    depth: str = ""
    """What a deep picture says of its scale, as `DepthFacts.to_text` writes it; empty: it has 8 bits a sample."""
    look: Look | None = field(default=None, compare=False, repr=False)
    """How it looks; None: no image, or not looked at."""

    @property
    def remarks(self) -> list[str]:
        """Return what is odd about how it looks, a few words each."""
        return [] if self.look is None else remarks(self.look, min(self.width, self.height))

    @property
    def is_good(self) -> bool:
        """Say whether the file decodes."""
        return not self.reason


@dataclass(frozen=True)
class FileStamp:
    """Tell one state of a file from another without reading it."""

    uri: str
    size: int
    """Bytes."""
    mtime_ns: int


class UnreadableFileError(Exception):
    """Report a file whose bytes cannot be had; the reason may pass, so it is never remembered."""


Reading = tuple[bytes, FileStamp] | UnreadableFileError | BadImageError
"""One file's bytes and the state that was read, or why there are none."""

AHEAD_BYTES = 64_000_000
"""Most bytes of objects that are fetched before they are asked for, in one process; one larger is fetched alone."""


def stamp_file(uri: str) -> FileStamp | None:
    """Return the file's stamp, or None where there is no readable regular file.

    Args:
        uri: Absolute path or URI.

    Raises:
        StorageUnreachableError: The store of a URI does not answer.
    """
    return stamp_files([uri])[0]


def stamp_files(uris: Sequence[str]) -> list[FileStamp | None]:
    """Return the stamp of each file as `stamp_file` does; a few requests at a time where they are objects."""
    objects = [uri for uri in uris if is_object(uri)]
    found = dict(zip(objects, find_objects(objects), strict=True)) if objects else {}
    return [_stamp_of(uri, found[uri]) if uri in found else _stamp_path(uri) for uri in uris]


def _stamp_of(uri: str, found: ObjectInfo | StorageError | None) -> FileStamp | None:
    return FileStamp(uri, found.size, found.mtime_ns) if isinstance(found, ObjectInfo) else None


def _stamp_path(path: str) -> FileStamp | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileStamp(path, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def read_file(uri: str, limits: Limits) -> tuple[bytes, FileStamp]:
    """Read a file once, whole.

    Args:
        uri: Absolute path or URI.
        limits: A larger file is refused unread.

    Returns:
        Its bytes, and the stamp of the state that was read.

    Raises:
        UnreadableFileError: It cannot be opened or read, or changes meanwhile.
        BadImageError: It is larger than the limit.
        StorageUnreachableError: The store of a URI does not answer: no matter of one file.
    """
    return _read_state(uri, stamp_file(uri), limits)


def _read_state(uri: str, stamp: FileStamp | None, limits: Limits) -> tuple[bytes, FileStamp]:
    if stamp is None:
        raise UnreadableFileError("file cannot be read: it is gone, or no regular file")
    if stamp.size > limits.max_file_bytes:
        raise BadImageError(f"file of {stamp.size:,} bytes is over the limit of {limits.max_file_bytes:,}")
    data = _read_bytes(uri, stamp.size)
    if len(data) != stamp.size or stamp_file(uri) != stamp:
        raise UnreadableFileError("file changed while it was read")
    return data, stamp


def _read_bytes(uri: str, size: int) -> bytes:
    try:
        if is_object(uri):
            return read_object(uri)
        with open(uri, "rb") as file:
            return file.read(size + 1)
    except StorageUnreachableError:
        raise
    except StorageError as error:
        raise UnreadableFileError(f"object cannot be read: {error}") from None
    except OSError as error:
        raise UnreadableFileError(f"file cannot be read: {(error.strerror or type(error).__name__).lower()}") from None


def read_files(uris: Sequence[str], limits: Limits) -> Iterator[Reading]:
    """Read files in order, each as `read_file` does; where they are objects, some are fetched ahead.

    Args:
        uris: Absolute paths or URIs.
        limits: As of `read_file`.

    Yields:
        For each file its bytes and stamp, or the error of this one.

    Raises:
        StorageUnreachableError: As of `read_file`.
    """
    if not any(map(is_object, uris)):
        yield from (_read_or_error(uri, stamp_file(uri), limits) for uri in uris)
        return
    with ThreadPoolExecutor(CONCURRENCY) as threads:
        ahead: deque[tuple[int, Future[Reading]]] = deque()
        pending = _stamped(uris)
        following = next(pending, None)
        while ahead or following is not None:
            # in order, so that a file's turn to be fetched never waits for one behind it
            while following is not None and _has_room(ahead, size := _size_to_read(following[1], limits)):
                ahead.append((size, threads.submit(_read_or_error, *following, limits)))
                following = next(pending, None)
            yield ahead[0][1].result()
            ahead.popleft()


def _stamped(uris: Sequence[str]) -> Iterator[tuple[str, FileStamp | None]]:
    """Yield files with their stamps, asked for a few at a time."""
    for start in range(0, len(uris), CONCURRENCY):
        part = uris[start : start + CONCURRENCY]
        yield from zip(part, stamp_files(part), strict=True)


def _size_to_read(stamp: FileStamp | None, limits: Limits) -> int:
    return stamp.size if stamp is not None and stamp.size <= limits.max_file_bytes else 0


def _has_room(ahead: Collection[tuple[int, Future[Reading]]], size: int) -> bool:
    held = sum(one for one, _ in ahead)
    return not ahead or (len(ahead) < CONCURRENCY and held + size <= AHEAD_BYTES)


def _read_or_error(uri: str, stamp: FileStamp | None, limits: Limits) -> Reading:
    try:
        return _read_state(uri, stamp, limits)
    except (UnreadableFileError, BadImageError) as error:
        return error


def inspect_files(uris: Sequence[str], limits: Limits) -> list[ImageFacts]:
    """Read each file once and say whether it serves as an image, keeping no pixels (`--cache none`).

    Args:
        uris: Absolute paths or URIs; of objects, a few are asked for at a time.
        limits: What is refused unread or undecoded.
    """
    return [_inspect(reading, limits) for reading in read_files(uris, limits)]


def _inspect(reading: Reading, limits: Limits) -> ImageFacts:
    if isinstance(reading, Exception):
        return ImageFacts("", 0, 0, str(reading))
    data, _ = reading
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        decoded = decode_image(data, short_side=None, limits=limits)
    except BadImageError as error:
        return ImageFacts(sha256, error.width, error.height, error.reason)
    look = look_at(decoded.pixels, decoded.mode, decoded.orientation)
    return ImageFacts(sha256, decoded.width, decoded.height, depth=depth_text(decoded), look=look)


def depth_text(decoded: Decoded) -> str:
    """Return what `ImageFacts.depth` holds of a decoded image."""
    return "" if decoded.depth is None else decoded.depth.to_text()
