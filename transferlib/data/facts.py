"""What one reading of a file tells: its content's hash, its size as an image, or why it is none."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass

from transferlib.data.decode import BadImageError, Limits, decode_image


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


def stamp_file(uri: str) -> FileStamp | None:
    """Return the file's stamp, or None where there is no readable regular file."""
    try:
        found = os.stat(uri)
    except (OSError, ValueError):
        return None
    return FileStamp(uri, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def read_file(uri: str, limits: Limits) -> tuple[bytes, FileStamp]:
    """Read a file once, whole.

    Args:
        uri: Absolute path.
        limits: A larger file is refused unread.

    Returns:
        Its bytes, and the stamp of the state that was read.

    Raises:
        UnreadableFileError: It cannot be opened or read, or changes meanwhile.
        BadImageError: It is larger than the limit.
    """
    stamp = stamp_file(uri)
    if stamp is None:
        raise UnreadableFileError("file cannot be read: it is gone, or no regular file")
    if stamp.size > limits.max_file_bytes:
        raise BadImageError(f"file of {stamp.size:,} bytes is over the limit of {limits.max_file_bytes:,}")
    try:
        with open(uri, "rb") as file:
            data = file.read(stamp.size + 1)
    except OSError as error:
        raise UnreadableFileError(f"file cannot be read: {(error.strerror or type(error).__name__).lower()}") from None
    if len(data) != stamp.size or stamp_file(uri) != stamp:
        raise UnreadableFileError("file changed while it was read")
    return data, stamp


def inspect_file(uri: str, limits: Limits) -> ImageFacts:
    """Read a file once and say whether it serves as an image, keeping no pixels (`--cache none`).

    Args:
        uri: Absolute path.
        limits: What is refused unread or undecoded.
    """
    try:
        data, _ = read_file(uri, limits)
    except (UnreadableFileError, BadImageError) as error:
        return ImageFacts("", 0, 0, str(error))
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        decoded = decode_image(data, short_side=None, limits=limits)
    except BadImageError as error:
        return ImageFacts(sha256, error.width, error.height, error.reason)
    return ImageFacts(sha256, decoded.width, decoded.height)
