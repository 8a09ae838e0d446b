"""What an s3:// or gs:// URI says. Standard library only, and no request."""

from __future__ import annotations

import re
from typing import NamedTuple

from transferlib.errors import StorageError, UsageError

SCHEMES = ("s3", "gs")
KNOWN = "Known: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, or a path."
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`, or the machine's service account",
}
"""Where credentials come from, for texts."""

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_QUERY = re.compile(r"\?[A-Za-z_.-]+=")


class ParsedUri(NamedTuple):
    """Hold the parts of a URI, taken literally: no character of a key is an escape."""

    scheme: str
    bucket: str
    key: str
    """Without slashes at its ends; empty for the bucket itself."""

    @property
    def path(self) -> str:
        """Return bucket and key as pyarrow wants them."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    @property
    def uri(self) -> str:
        """Return the URI, always in the same spelling."""
        return f"{self.scheme}://{self.path}"


def is_uri(text: str) -> bool:
    """Say whether a text names an object store rather than a path.

    Args:
        text: As typed.

    Raises:
        StorageError: It is a URI of a store, but holds credentials or names no bucket.
        UsageError: It is a URI of another kind.
    """
    found = _URI.fullmatch(text)
    if found is None:
        return False
    scheme, rest = found[1].lower(), found[2]
    if scheme not in SCHEMES:
        raise UsageError(f"{scheme}:// is not supported. {KNOWN}")
    _refuse_secrets(scheme, rest)
    _check_bucket(scheme, rest)
    return True


def parse_uri(uri: str) -> ParsedUri:
    """Return the parts of a URI that names a place or an object.

    Raises:
        StorageError: It is no s3:// or gs:// URI, or its key has an empty part, "." or "..", which would not come back.
    """
    found = _URI.fullmatch(uri)
    scheme = found[1].lower() if found else ""
    if found is None or scheme not in SCHEMES:
        raise StorageError(f"{uri!r} names no object store. {KNOWN}")
    bucket, _, key = found[2].partition("/")
    _check_bucket(scheme, bucket)
    key = key.strip("/")
    if not is_plain_key(key) and key:
        raise StorageError(f"{scheme}://{bucket}/{key}: an empty part, '.' or '..' in a key cannot be used. Rename it.")
    return ParsedUri(scheme, bucket, key)


def is_plain_key(key: str) -> bool:
    """Say whether a key reads as a relative path that stays where it is: no empty part, no "." and no ".."."""
    return all(part not in ("", ".", "..") for part in key.split("/"))


def _check_bucket(scheme: str, rest: str) -> None:
    bucket = rest.partition("/")[0]
    if not _BUCKET.fullmatch(bucket):
        raise StorageError(f"{scheme}://{rest} names no bucket. Write {scheme}://BUCKET/PREFIX.")


def _refuse_secrets(scheme: str, rest: str) -> None:
    """Refuse credentials in a URI, without repeating them: a URI stands in the spec, the log and the report."""
    authority, _, key = rest.partition("/")
    query = _QUERY.search(rest)
    if "@" in authority or query:
        shown = (authority.rpartition("@")[2] + "/" + key).partition("?")[0].rstrip("/")
        what = "a user and password" if "@" in authority else "options behind '?'"
        raise StorageError(
            f"{scheme}://{shown}: the URI was given with {what}; a URI ends up in files that others read. "
            f"Credentials come from the environment: {CREDENTIALS[scheme]}. "
            "Another endpoint or region: AWS_ENDPOINT_URL, AWS_REGION."
        )
