"""What the client of the Jobs API makes of heads that are gone, silent, closed, forgetful or no heads at all."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiohttp import web

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


def test_a_head_that_hangs_in_the_middle_of_a_log_is_given_up_in_time() -> None:
    """It streams a line, then neither answers nor closes, like a stopped process or a lost route."""
    hanging = threading.Event()

    async def find(_: web.Request) -> web.Response:
        if hanging.is_set():
            await asyncio.sleep(60)
        return web.json_response({**JOB, "status": "RUNNING", "end_time": None, "driver_exit_code": None})

    async def tail(request: web.Request) -> web.WebSocketResponse:
        stream = web.WebSocketResponse(autoping=False)
        await stream.prepare(request)
        await stream.send_str("one line\n")
        hanging.set()
        await asyncio.sleep(60)
        return stream

    with serving({"/api/jobs/x": find, "/api/jobs/x/logs/tail": tail, "/api/version": version}) as port:
        client = JobsClient(ClusterAddress(f"http://127.0.0.1:{port}", "--address"), timeout_s=0.5)
        lines = client.follow_logs("x")
        assert next(lines) == "one line\n"
        began = time.monotonic()
        with pytest.raises(ClusterUnreachableError, match=r"no answer within 0\.5 s"):
            next(lines)
        assert time.monotonic() - began < 4.0


async def version(_: web.Request) -> web.Response:
    return web.json_response(VERSION[1])


@contextmanager
def serving(handlers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]) -> Iterator[int]:
    """Serve GET handlers by path on loopback; yields the port."""
    app = web.Application()
    app.add_routes([web.get(path, handler) for path, handler in handlers.items()])
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app, shutdown_timeout=0)
    started: queue.SimpleQueue[int] = queue.SimpleQueue()

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        started.put(runner.addresses[0][1])

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield started.get(timeout=10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
