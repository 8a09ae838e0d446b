"""What the client of the Jobs API makes of heads that are gone, silent, closed, forgetful or no heads at all."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZipFile

import pytest

from transferlib.addresses import ClusterAddress
from transferlib.errors import ClusterUnreachableError, UsageError
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
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
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


@pytest.fixture
def parcels(tmp_path: Path) -> Path:
    """Return a folder that holds a script's folder and a package, as a job of ours has them."""
    for name, text in {"scripts/job.py": "pass", "transferlib/__init__.py": "", "transferlib/deep/x.py": "1"}.items():
        path = tmp_path / "parcels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "parcels"


def send(client: JobsClient, parcels: Path, job: str = "x") -> bool:
    return client.submit(
        job,
        "exec python job.py",
        working_dir=parcels / "scripts",
        py_modules=[parcels / "transferlib"],
        env_vars={"A": "1"},
        metadata={"run": job},
    )


class Taking(BaseHTTPRequestHandler):
    """Take packages and jobs as Ray's head does."""

    packages: dict[str, bytes]
    jobs: list[dict[str, Any]]
    refusals: dict[str, tuple[int, str]]

    def do_GET(self) -> None:
        if self.path == "/api/version":
            self.say(200, json.dumps(VERSION[1]))
        else:
            self.say(200 if self.path in self.packages else 404)

    def do_PUT(self) -> None:
        self.packages[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.say(*self.refusals.get("PUT", (200, "")))

    def do_POST(self) -> None:
        assert self.path == "/api/jobs/"
        self.jobs.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.say(*self.refusals.get("POST", (200, json.dumps({"submission_id": "x"}))))

    def say(self, code: int, text: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def taking() -> Iterator[tuple[JobsClient, type[Taking]]]:
    """Return a client of a head that takes jobs, and what it has taken."""

    class Kept(Taking):
        packages: ClassVar[dict[str, bytes]] = {}
        jobs: ClassVar[list[dict[str, Any]]] = []
        refusals: ClassVar[dict[str, tuple[int, str]]] = {}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Kept)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield JobsClient(ClusterAddress(f"http://127.0.0.1:{server.server_port}", "--address"), timeout_s=5), Kept
    server.shutdown()
    server.server_close()


def test_a_job_goes_with_what_it_needs_named_by_content(taking: tuple[JobsClient, type[Taking]], parcels: Path) -> None:
    client, head = taking
    assert send(client, parcels) is True
    (job,) = head.jobs
    environment = job.pop("runtime_env")
    assert job == {"submission_id": "x", "entrypoint": "exec python job.py", "metadata": {"run": "x"}}
    assert environment["env_vars"] == {"A": "1"}
    names = [environment["working_dir"], *environment["py_modules"]]
    sent = [head.packages[f"/api/packages/gcs/{name.removeprefix('gcs://')}"] for name in names]
    assert len(sent) == len(head.packages) == 2
    assert [ZipFile(io.BytesIO(package)).namelist() for package in sent] == [
        ["job.py"],
        ["transferlib/__init__.py", "transferlib/deep/x.py"],
    ]


def test_what_the_head_has_is_not_sent_again_and_what_changed_is(
    taking: tuple[JobsClient, type[Taking]], parcels: Path
) -> None:
    client, head = taking
    send(client, parcels)
    names = set(head.packages)
    head.packages = dict.fromkeys(names, b"as before")
    os.utime(parcels / "scripts/job.py", (0, 0))
    (parcels / "transferlib/__pycache__").mkdir()
    (parcels / "transferlib/__pycache__/x.pyc").touch()
    send(client, parcels)
    assert head.packages == dict.fromkeys(names, b"as before")
    (parcels / "transferlib/deep/x.py").write_text("2")
    send(client, parcels)
    assert len(head.packages) == 3
    (parcels / "transferlib/deep/x.py").chmod(0o700)
    send(client, parcels)
    assert len(head.packages) == 4


@pytest.mark.parametrize(
    ("method", "answer", "words"),
    [
        ("POST", (500, "Traceback:\n  File\nRuntimeError: no room for a job.\n"), "RuntimeError: no room for a job"),
        ("POST", (400, "entrypoint must be a string"), "Request failed with status code 400: entrypoint must be"),
        ("PUT", (500, "Traceback:\n  File\nValueError: exceeds the maximum size.\n"), "ValueError: exceeds the"),
    ],
)
def test_a_head_that_refuses_a_job_is_quoted(
    taking: tuple[JobsClient, type[Taking]], parcels: Path, method: str, answer: tuple[int, str], words: str
) -> None:
    client, head = taking
    head.refusals[method] = answer
    with pytest.raises(UsageError, match=f"refuses the job x: {words}"):
        send(client, parcels)


def test_an_answer_of_what_stands_before_the_head_is_a_lost_connection(
    taking: tuple[JobsClient, type[Taking]], parcels: Path
) -> None:
    """Whether the head took the job is not known: it is looked for, sent again where it is not there, then given up."""
    client, head = taking
    head.refusals["POST"] = (504, "<html>Gateway Time-out</html>")
    with pytest.raises(ClusterUnreachableError, match="what stands before it answers 504"):
        send(client, parcels)
    assert [job["submission_id"] for job in head.jobs] == ["x", "x"]


def test_a_job_that_the_head_has_already_is_not_started_again(
    taking: tuple[JobsClient, type[Taking]], parcels: Path
) -> None:
    client, head = taking
    head.refusals["POST"] = (500, "ValueError: Job with submission_id x already exists.")
    assert send(client, parcels) is False
