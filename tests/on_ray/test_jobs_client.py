"""What the client of the Jobs API makes of heads that are gone, silent, closed, forgetful or no heads at all."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from transferlib.addresses import ClusterAddress
from transferlib.errors import ClusterUnreachableError
from transferlib.on_ray.jobs import JobsClient

Answers = dict[str, tuple[int, object]]
VERSION: tuple[int, object] = (200, {"ray_version": "2.60.0"})
JOB = {
    "submission_id": "x",
    "job_id": None,
    "status": "FAILED",
    "message": "exit code 5",
    "driver_exit_code": 5,
    "start_time": 2000,
    "end_time": 3000,
    "metadata": {"run": "x"},
    "type": "SUBMISSION",
}


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def head() -> Iterator[Callable[[Answers], JobsClient]]:
    """Return a maker of clients of a head that gives these answers, by path."""
    servers: list[ThreadingHTTPServer] = []

    def make(answers: Answers) -> JobsClient:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, body = answers.get(self.path, (404, "nothing here"))
                raw = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return JobsClient(ClusterAddress(f"http://127.0.0.1:{servers[-1].server_port}", "--address"), timeout_s=5)

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_head_that_accepts_and_never_answers_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begun = time.monotonic()
        with pytest.raises(ClusterUnreachableError):
            JobsClient(ClusterAddress(f"http://127.0.0.1:{silent.getsockname()[1]}", "--address"), timeout_s=0.5)
        assert time.monotonic() - begun < 3


def test_nothing_listening_names_the_address() -> None:
    with pytest.raises(ClusterUnreachableError, match=r"127\.0\.0\.1:9"):
        JobsClient(ClusterAddress("http://127.0.0.1:9", "--address"), timeout_s=2)


@pytest.mark.parametrize("code", [401, 403])
def test_a_token_that_is_missing_or_wrong_says_how_to_set_it(head: Callable[[Answers], JobsClient], code: int) -> None:
    with pytest.raises(ClusterUnreachableError, match="RAY_AUTH_TOKEN_PATH"):
        head({"/api/version": (code, "no")})


def test_what_is_no_ray_head_is_said_to_be_none(head: Callable[[Answers], JobsClient]) -> None:
    with pytest.raises(ClusterUnreachableError, match="no Ray head"):
        head({"/api/version": (200, "hello")})


def test_a_job_is_found_with_its_code_times_and_metadata(head: Callable[[Answers], JobsClient]) -> None:
    state = head({"/api/version": VERSION, "/api/jobs/x": (200, JOB)}).find("x")
    assert state is not None
    assert (state.status, state.exit_code, state.started_at, state.ended_at) == ("FAILED", 5, 2.0, 3.0)
    assert state.metadata == {"run": "x"}
    assert state.has_ended


def test_a_job_that_the_head_forgot_is_none(head: Callable[[Answers], JobsClient]) -> None:
    assert head({"/api/version": VERSION}).find("x") is None


def test_a_head_that_takes_anybody_is_known_to(head: Callable[[Answers], JobsClient]) -> None:
    assert head({"/api/version": VERSION}).asks_for_token() is False
