"""An S3 server on loopback for tests: moto's, in a process of its own."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_S = 60
_CODE = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"
ACCESS_KEY, SECRET_KEY = "AKIATESTACCESSKEY000", "test-secret-that-must-never-be-seen"
VARIABLES = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


class S3Server:
    """A running server.

    Args:
        url: Of it.
        log: File that has a line for each request.
    """

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log

    def make_bucket(self, name: str = "") -> str:
        """Make a bucket of its own for a test; returns s3://bucket."""
        name = name or f"bucket-{secrets.token_hex(4)}"
        self.put(name, b"")
        return f"s3://{name}"

    def put(self, path: str, data: bytes) -> None:
        """Put an object (bucket/key) past our own code; a key may be one that it would not write."""
        request = urllib.request.Request(f"{self.url}/{path}", method="PUT", data=data)
        request.add_header("Content-Type", "application/octet-stream")
        with urllib.request.urlopen(request, timeout=30):
            pass

    def requests(self) -> list[str]:
        """Return the requests so far, as "METHOD /path"."""
        return re.findall(r'"(?:\x1b\[[0-9;]*m)*([A-Z]+ \S+) HTTP', self.log.read_text(errors="replace"))


@contextmanager
def running_server(log: Path) -> Iterator[S3Server]:
    """Run a server.

    Args:
        log: Where its output goes.
    """
    with open(log, "wb") as output:
        process = subprocess.Popen([sys.executable, "-c", _CODE], stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + START_S
            while not (found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text(errors="replace"))):
                assert process.poll() is None, log.read_text(errors="replace")
                assert time.monotonic() < deadline, "moto's server did not start"
                time.sleep(0.05)
            yield S3Server(found[1], log)
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Run one server for all tests that ask for it, with the environment that leads there."""
    with running_server(tmp_path_factory.mktemp("s3") / "log.txt") as server, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in {**VARIABLES, "AWS_ENDPOINT_URL": server.url}.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def s3_server(s3_process: S3Server) -> str:
    """Return the URI of a prefix in a bucket of the session's server."""
    return f"{s3_process.make_bucket()}/shared"


@pytest.fixture
def s3_bucket(s3_process: S3Server) -> str:
    """Return the URI of a new, empty bucket of the session's server."""
    return s3_process.make_bucket()
