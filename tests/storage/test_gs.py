"""What of gs:// can be tested without Google: the calls made, by a fake in pyarrow's place, and what errors say."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import pytest
from pyarrow import fs

from transferlib.errors import ObjectNotFoundError, StorageError, StorageUnreachableError
from transferlib.storage import connections
from transferlib.storage.connections import connect, storage_errors
from transferlib.storage.locations import Location, open_location
from transferlib.storage.objects import find_objects


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> fs.FileSystem:
    """Put a store in memory where pyarrow's client of Google's would be."""
    store = fs._MockFileSystem()
    store.create_dir("bucket")
    monkeypatch.setattr(connections, "_connect_gs", lambda settings: store)
    return store


def test_gs_goes_through_the_same_code_as_s3(google: fs.FileSystem) -> None:
    place = open_location("gs://bucket")
    google.create_dir("bucket/a")
    place.write("a/x", b"1")
    assert [info.name for info in place.list()] == ["a/x"]
    assert place.read("a/x") == b"1"
    found = find_objects(["gs://bucket/a/x", "gs://bucket/gone"])
    assert [one.size if isinstance(one, tuple) else one for one in found] == [1, None]


def test_gs_bucket_that_is_not_there_is_said(google: fs.FileSystem) -> None:
    with pytest.raises(ObjectNotFoundError, match=r"^gs://none: there is no such bucket at Google Cloud Storage\."):
        open_location("gs://none/x")


def test_gs_has_a_time_limit_and_takes_an_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def make(**settings: Any) -> str:
        made.append(settings)
        return "a filesystem"

    monkeypatch.setattr(fs, "GcsFileSystem", make)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    connections._connect_gs.cache_clear()
    limit = {"retry_time_limit": timedelta(seconds=connections.REQUEST_TIMEOUT_S)}
    assert connect("gs://b/x") == "a filesystem"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    connect("gs://b/x")
    emulator = {"scheme": "http", "endpoint_override": "127.0.0.1:9", "anonymous": True}
    assert made == [limit, limit | emulator]
    connections._connect_gs.cache_clear()


def test_gs_with_nobody_there_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(StorageUnreachableError, match="does not answer"):
            Location("gs://b/p").list()


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("google::cloud::Status(PERMISSION_DENIED: no)", StorageError, "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth"),
        ("google::cloud::Status(UNAUTHENTICATED: Could not create)", StorageError, "access is refused"),
        ("google::cloud::Status(UNAVAILABLE: x)", StorageUnreachableError, "Google Cloud Storage does not answer"),
        ("google::cloud::Status(DEADLINE_EXCEEDED: x)", StorageUnreachableError, "does not answer"),
    ],
)
def test_gs_errors_say_what_to_set(text: str, kind: type[StorageError], said: str) -> None:
    with pytest.raises(kind, match=said), storage_errors("gs://bucket/x"):
        raise OSError(text)
