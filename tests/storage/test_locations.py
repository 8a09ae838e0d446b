from __future__ import annotations

import http.server
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.storage.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from transferlib.errors import ObjectNotFoundError, StorageError, StorageUnreachableError
from transferlib.storage import connections
from transferlib.storage.locations import CHUNK_BYTES, Location, open_location


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "folder":
        return open_location(str(tmp_path / "store"))
    return open_location(f"{request.getfixturevalue('s3_bucket')}/some/prefix")


def names(place: Location, prefix: str = "", recursive: bool = True) -> list[str]:
    return [info.name for info in place.list(prefix, recursive)]


def test_what_is_written_is_read_back_and_listed_by_relative_name(place: Location) -> None:
    assert names(place) == []
    place.write("b/c.bin", b"\0\xff")
    place.write("a.txt", b"")
    place.write("b/c.bin", b"again")
    assert (place.read("b/c.bin"), place.read("a.txt")) == (b"again", b"")
    assert names(place) == ["a.txt", "b/c.bin"]
    assert names(place, recursive=False) == ["a.txt"]
    assert names(place, "b") == ["b/c.bin"]
    assert names(place.child("b")) == ["c.bin"]
    assert names(place, "nothing") == []
    info = place.info("b/c.bin")
    assert info is not None
    assert (info.size, info in place.list()) == (5, True)


def test_names_with_blanks_signs_and_letters_of_all_kinds_come_back(place: Location) -> None:
    odd = ["a b/ü?c=d#e%20@+&.jpg", "çà/日本.png"]
    for name in odd:
        place.write(name, name.encode())
    assert sorted(names(place)) == sorted(odd)
    assert [place.read(name).decode() for name in odd] == odd


def test_only_objects_exist_and_removing_twice_is_removing(place: Location) -> None:
    place.write("folder/file", b"1")
    assert place.exists("folder/file")
    assert not place.exists("folder")
    place.delete("folder/file")
    place.delete("folder/file")
    assert not place.exists("folder/file")
    with pytest.raises(ObjectNotFoundError, match="folder/file does not exist"):
        place.read("folder/file")
    with pytest.raises(ObjectNotFoundError, match="folder/file does not exist"):
        place.download("folder/file", Path("/nowhere"))


def test_large_file_goes_up_and_down_in_pieces(place: Location, tmp_path: Path) -> None:
    content = bytes(range(256)) * (CHUNK_BYTES // 256) + b"the rest"
    (tmp_path / "large").write_bytes(content)
    place.upload("models/large", tmp_path / "large")
    place.download("models/large", tmp_path / "new/folder/back")
    assert (tmp_path / "new/folder/back").read_bytes() == content
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["back"]


def test_upload_of_a_file_that_is_not_there_leaves_what_was(place: Location, tmp_path: Path) -> None:
    place.write("x", b"before")
    with pytest.raises(ObjectNotFoundError, match="missing does not exist"):
        place.upload("x", tmp_path / "missing")
    assert place.read("x") == b"before"
    assert names(place) == ["x"]


def test_empty_file_goes_up_too(place: Location, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    place.upload("x", tmp_path / "empty")
    assert place.read("x") == b""


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "a/", "a\0b"])
def test_no_name_leads_out_of_a_location(place: Location, name: str) -> None:
    for call in (place.read, place.exists, place.delete, place.child, place.list):
        with pytest.raises(StorageError, match="is no name below"):
            call(name)
    with pytest.raises(StorageError, match="is no name below"):
        place.write(name, b"")


def test_location_travels_between_processes(place: Location) -> None:
    place.write("x", b"1")
    assert pickle.loads(pickle.dumps(place)).read("x") == b"1"


def test_uris_of_one_place_are_one_location(s3_bucket: str) -> None:
    assert open_location(f"{s3_bucket}/a/") == open_location(f"S3://{s3_bucket[5:]}/a") == Location(f"{s3_bucket}/a")
    assert open_location(f"{s3_bucket}/") == Location(s3_bucket)


def test_markers_of_folders_and_keys_that_are_no_paths_are_not_objects(s3_process: S3Server, s3_bucket: str) -> None:
    bucket = s3_bucket[5:]
    for key in ("p/", "p/empty/", "p/full/", "p/full/x"):
        s3_process.put(f"{bucket}/{key}", b"")
    assert names(open_location(f"{s3_bucket}/p")) == ["full/x"]


def test_bucket_that_is_not_there_is_said(s3_process: S3Server) -> None:
    for uri in ("s3://no-such-bucket", "s3://no-such-bucket/a/b"):
        with pytest.raises(ObjectNotFoundError, match=r"^s3://no-such-bucket: there is no such bucket at http://127"):
            open_location(uri)
    with pytest.raises(ObjectNotFoundError, match="no such bucket"):
        Location("s3://no-such-bucket/a").list()
    with pytest.raises(ObjectNotFoundError, match="no such bucket"):
        Location("s3://no-such-bucket/a").write("x", b"1")


def test_relative_path_is_no_location() -> None:
    with pytest.raises(StorageError, match="'runs' is no absolute path"):
        open_location("runs")


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/x: (file exists|not a directory)\. Check the path"):
        open_location(str(tmp_path / "file")).write("x", b"1")


def test_nobody_at_the_endpoint_is_unreachable_within_seconds(
    s3_process: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(
            StorageUnreachableError, match=f"^s3://b/p: {url} does not answer .*Check the network, and "
        ):
            open_location("s3://b/p")


def test_server_that_never_answers_is_given_up(s3_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 1)
    monkeypatch.setattr(connections, "ATTEMPTS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StorageUnreachableError, match="does not answer"):
            open_location("s3://b/p")


@contextmanager
def answering(status: int, code: str) -> Iterator[str]:
    """Run a server that refuses everything, and repeats the credentials that it was shown, as careless ones do."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>{ACCESS_KEY} {SECRET_KEY}</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815 (http.server's names)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AccessDenied", r"access is refused .* AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE"),
        (403, "InvalidAccessKeyId", "access is refused"),
        (403, "SignatureDoesNotMatch", "access is refused"),
        (301, "PermanentRedirect", "another region .* Set AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", "Set AWS_REGION"),
    ],
)
def test_refusals_say_what_to_set_and_never_repeat_credentials(
    s3_process: S3Server, monkeypatch: pytest.MonkeyPatch, status: int, code: str, said: str
) -> None:
    monkeypatch.setattr(connections, "ATTEMPTS", 1)
    with answering(status, code) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StorageError, match=said) as caught:
            Location("s3://b/p").list()
        with pytest.raises(StorageError) as on_write:
            Location("s3://b/p").write("x", b"1")
    for text in (str(caught.value), str(on_write.value)):
        assert ACCESS_KEY not in text
        assert SECRET_KEY not in text


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "ftp://x", "http://user:hunter2@127.0.0.1:1", "http://"])
def test_endpoint_that_cannot_be_one_is_refused(
    s3_process: S3Server, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL must be http://HOST:PORT") as caught:
        open_location("s3://b/p")
    assert "hunter2" not in str(caught.value)


def test_changed_credentials_make_a_new_connection(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = connections.connect(s3_bucket)
    assert connections.connect(s3_bucket) is first
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    assert connections.connect(s3_bucket) is not first


def test_ctrl_c_while_writing_leaves_a_whole_object(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from transferlib.storage import locations

    real = locations._put_object

    def put(*args: object) -> None:
        signal.raise_signal(signal.SIGINT)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(locations, "_put_object", put)
    # A suite that runs in the background may have been started with SIGINT ignored.
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        Location(s3_bucket).write("x", b"whole")
    deadline = time.monotonic() + 30
    while not Location(s3_bucket).exists("x"):  # the interrupted call does not wait for its thread in every case
        assert time.monotonic() < deadline
    assert Location(s3_bucket).read("x") == b"whole"


def test_region_is_asked_for_where_nothing_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import fs

    asked: list[str] = []

    def region(bucket: str) -> str:
        asked.append(bucket)
        return "eu-central-1"

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fs, "resolve_s3_region", region)
    filesystem = connections.connect("s3://some-bucket/x")
    assert isinstance(filesystem, fs.S3FileSystem)
    assert (filesystem.region, asked) == ("eu-central-1", ["some-bucket"])
