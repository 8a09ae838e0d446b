"""Connections to object stores through pyarrow, one a process and setting, and their errors in words.

Credentials, endpoint and region come from the environment or the machine's role, never from a URI or a setting of ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from transferlib.errors import ObjectNotFoundError, StorageError, StorageUnreachableError
from transferlib.storage.uris import CREDENTIALS, parse_uri

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CONNECT_TIMEOUT_S = 5
REQUEST_TIMEOUT_S = 20
"""Without a byte received: a slow transfer goes on, a silent server ends it."""
ATTEMPTS = 3
_SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SETTING_VARIABLES = (
    *_SECRET_VARIABLES,
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "STORAGE_EMULATOR_HOST",
    "HOME",
)
"""What decides which store is meant, and as whom: another value, another connection."""

_UNREACHABLE = re.compile(
    r"NETWORK_CONNECTION|REQUEST_TIMEOUT|SERVICE_UNAVAILABLE|SLOW_DOWN|INTERNAL_FAILURE|curlCode|timed out"
    r"|UNAVAILABLE|DEADLINE_EXCEEDED|Could not create an OAuth2 access token|[Cc]ouldn't resolve|[Cc]ould not resolve"
)
_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|INVALID_SIGNATURE|SIGNATURE_DOES_NOT_MATCH"
    r"|UNRECOGNIZED_CLIENT|EXPIRED_TOKEN|MISSING_AUTHENTICATION_TOKEN|HTTP status 40[13]|PERMISSION_DENIED"
    r"|UNAUTHENTICATED|REQUEST_EXPIRED|REQUEST_TIME_TOO_SKEWED"
)
_ELSEWHERE = re.compile(r"HTTP status 301|PERMANENT_?REDIRECT|AuthorizationHeaderMalformed|region", re.IGNORECASE)


def connect(uri: str) -> FileSystem:
    """Return the connection that reaches a URI; the same one while the environment says the same.

    Args:
        uri: s3:// or gs://.

    Raises:
        StorageError: The environment's settings cannot be used.
        StorageUnreachableError: The bucket's region cannot be asked for.
    """
    parsed = parse_uri(uri)
    settings = tuple(os.environ.get(name) for name in _SETTING_VARIABLES)
    if parsed.scheme == "gs":
        return _connect_gs(settings)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    # A region is the bucket's own; a store of another maker has one in name only.
    asked = "" if region or endpoint else parsed.bucket
    return _connect_s3(endpoint, region, asked, settings)


@lru_cache(maxsize=16)
def _connect_s3(endpoint: str, region: str, bucket: str, settings: tuple[str | None, ...]) -> FileSystem:
    from pyarrow import fs

    with storage_errors(f"s3://{bucket}" if bucket else endpoint or "s3://"):
        if bucket:
            region = fs.resolve_s3_region(bucket)
        address = {} if not endpoint else _endpoint(endpoint)
        return fs.S3FileSystem(
            region=region or None,
            connect_timeout=CONNECT_TIMEOUT_S,
            request_timeout=REQUEST_TIMEOUT_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            # one request for a small object instead of the three of a multi-part upload
            allow_delayed_open=True,
            tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE") or None,
            **address,
        )


def _endpoint(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise StorageError("AWS_ENDPOINT_URL must be http://HOST:PORT or https://HOST:PORT, without user or password.")
    return {"scheme": parts.scheme, "endpoint_override": parts.netloc}


@lru_cache(maxsize=4)
def _connect_gs(settings: tuple[str | None, ...]) -> FileSystem:
    from datetime import timedelta

    from pyarrow import fs

    with storage_errors("gs://"):
        address = {}
        if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
            parts = urlsplit(emulator if "://" in emulator else f"http://{emulator}")
            address = {"scheme": parts.scheme, "endpoint_override": parts.netloc, "anonymous": True}
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=REQUEST_TIMEOUT_S), **address)


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turn what pyarrow and the operating system raise into errors that say what to do.

    Args:
        uri: What was being reached; a path too.

    Raises:
        ObjectNotFoundError: It is not there.
        StorageUnreachableError: The store does not answer.
        StorageError: Anything else.
    """
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError:
        raise ObjectNotFoundError(f"{uri} does not exist.") from None
    except Exception as error:  # pyarrow raises OSError and its own, unrelated exceptions
        import pyarrow as pa

        if isinstance(error, OSError | pa.ArrowException):
            raise _translated(uri, error) from None
        raise


def _translated(uri: str, error: Exception) -> StorageError:
    scheme, _, rest = uri.partition("://")
    said = _without_secrets(" ".join(str(error).split()) or type(error).__name__)
    if scheme not in CREDENTIALS and not scheme.startswith("http"):
        why = getattr(error, "strerror", None) or said
        return StorageError(f"{uri}: {why.lower()}. Check the path, its permissions and the disk's free space.")
    bucket = rest.partition("/")[0]
    if "NO_SUCH_BUCKET" in said:
        return no_such_bucket(f"{scheme}://{bucket}")
    if _UNREACHABLE.search(said):
        where = endpoint_in_words(scheme)
        return StorageUnreachableError(
            f"{uri}: {where} does not answer ({_detail(said)}). Check the network, and "
            f"{'AWS_ENDPOINT_URL and AWS_REGION' if scheme != 'gs' else 'GOOGLE_APPLICATION_CREDENTIALS'}."
        )
    if _REFUSED.search(said):
        return StorageError(
            f"{uri}: access is refused ({_detail(said)}): no credentials, wrong ones, or without the right to this. "
            f"They come from the environment: {CREDENTIALS.get(scheme, CREDENTIALS['s3'])}."
        )
    if _ELSEWHERE.search(said):
        return StorageError(f"{uri}: the bucket is in another region ({_detail(said)}). Set AWS_REGION to its own.")
    return StorageError(f"{uri}: {_detail(said)}.")


def no_such_bucket(uri: str) -> StorageError:
    """Return the error for a bucket that is not there.

    Args:
        uri: Of the bucket.
    """
    scheme = uri.partition("://")[0]
    where = endpoint_in_words(scheme)
    hint = " AWS_ENDPOINT_URL names another store." if scheme == "s3" else ""
    return ObjectNotFoundError(f"{uri}: there is no such bucket at {where}. Check its name, or create it.{hint}")


def endpoint_in_words(scheme: str) -> str:
    """Return which server answers for a kind of URI."""
    variables = ("STORAGE_EMULATOR_HOST",) if scheme == "gs" else ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    said = next((value for name in variables if (value := os.environ.get(name))), "")
    return said.rpartition("@")[2] if said else "Google Cloud Storage" if scheme == "gs" else "AWS S3"


def _detail(said: str) -> str:
    """Return what the store said, without the request's number and what we know already."""
    said = re.sub(r"\s*\(Request ID: [^)]*\)", "", said)
    said = re.sub(r"^When .*?: (?=AWS Error)", "", said)
    return said.strip().rstrip(".")[:300]


def _without_secrets(text: str) -> str:
    for name in _SECRET_VARIABLES:
        if value := os.environ.get(name):
            text = text.replace(value, "***")
    return text
