"""What goes over the line to a head, what never does, and what is said where nothing whole comes back."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from transferlib.addresses import ClusterAddress
from transferlib.errors import ClusterUnreachableError
from transferlib.on_ray.head_http import ConnectionLostError, HeadHttp


class Head(ThreadingHTTPServer):
    """Answer every request alike, and keep what came."""

    def __init__(self, status: int = 200, headers: dict[str, str] | None = None, body: bytes = b"{}") -> None:
        self.came: list[tuple[str, str, dict[str, str], bytes]] = []
        head = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                head.came.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in (
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "NETRC",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "no_proxy",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def nobody_is_known(*_: object, **__: object) -> None:
    """Stand in for a name service."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def http_to(port: int, *, token: str = "hush", scheme: str = "http", timeout_s: float = 5.0) -> HeadHttp:
    address = ClusterAddress(f"{scheme}://127.0.0.1:{port}", "--address")
    return HeadHttp(address, timeout_s=timeout_s, environ={"RAY_AUTH_TOKEN": token})


def test_a_request_carries_its_body_and_the_clusters_token() -> None:
    with Head() as head:
        http = http_to(head.server_port)
        assert http.ask("POST", "/api/jobs/", json_data={"entrypoint": "é"}).json() == {}
        http.ask("PUT", "/api/packages/gcs/x.zip", data=b"\x00\xff")
    (post, put) = head.came
    assert (post[0], post[1], post[3]) == ("POST", "/api/jobs/", b'{"entrypoint": "\\u00e9"}')
    assert (put[0], put[1], put[3]) == ("PUT", "/api/packages/gcs/x.zip", b"\x00\xff")
    assert {came[2]["Authorization"] for came in head.came} == {"Bearer hush"}


def test_a_stranger_has_neither_token_nor_cookie() -> None:
    with Head(headers={"Set-Cookie": "ray-authentication-token=hush"}) as head:
        http = http_to(head.server_port)
        http.ask("GET", "/")
        assert http.turns_strangers_away("/") is False
    assert not {"Authorization", "Cookie"} & head.came[-1][2].keys()


def test_a_login_in_netrc_does_not_take_the_tokens_place(home: Path) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (home / ".netrc").chmod(0o600)
    with Head() as head:
        http_to(head.server_port).ask("GET", "/")
        http_to(head.server_port, token="").ask("GET", "/")
    assert [came[2].get("Authorization") for came in head.came] == ["Bearer hush", None]


def test_a_redirect_is_not_followed() -> None:
    with Head() as elsewhere, Head(302, {"Location": f"http://127.0.0.1:{elsewhere.server_port}/"}) as head:
        with pytest.raises(ClusterUnreachableError, match=r"answers with a redirect \(302\), as no Ray head does"):
            http_to(head.server_port).ask("GET", "/")
        assert elsewhere.came == []


@pytest.mark.parametrize("target", ["http://[bad", "/caf\xe9"])
def test_a_redirect_to_nowhere_is_told_like_any(target: str) -> None:
    with (
        Head(302, {"Location": target}) as head,
        pytest.raises(ClusterUnreachableError, match="answers with a redirect"),
    ):
        http_to(head.server_port).ask("GET", "/")


@pytest.mark.parametrize("token", ["hush\nhush", "hush hush", "hush\u2019s"])
def test_what_can_be_no_token_is_refused_by_its_place_alone(home: Path, token: str) -> None:
    place = home / "token"
    place.write_text(token)
    for environ in ({"RAY_AUTH_TOKEN": token}, {"RAY_AUTH_TOKEN_PATH": str(place)}):
        with pytest.raises(ClusterUnreachableError, match="is no token of a cluster") as caught:
            HeadHttp(ClusterAddress("http://127.0.0.1:9", "--address"), environ=environ)
        assert "hush" not in str(caught.value)


def test_a_proxy_of_another_kind_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    monkeypatch.setattr(socket, "getaddrinfo", nobody_is_known)
    with pytest.raises(ConnectionLostError, match=r"no host is called 'haed'"):
        HeadHttp(ClusterAddress("http://haed:8265", "--address"), environ={}).ask("GET", "/")


def test_no_proxy_leads_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    with Head() as proxy, Head() as head:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        http_to(head.server_port).ask("GET", "/")
        assert (len(proxy.came), len(head.came)) == (0, 1)


def test_a_proxy_leads_to_a_head_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with Head() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        HeadHttp(ClusterAddress("http://head.invalid:8265", "--address"), environ={}).ask("GET", "/api/version")
        assert proxy.came[0][1] == "http://head.invalid:8265/api/version"


def test_an_answer_of_no_stated_encoding_is_utf_8() -> None:
    with Head(body=b'"\xc3\xa9\xff"', headers={"Content-Type": "text/plain"}) as head:
        assert http_to(head.server_port).ask("GET", "/").text == '"é\ufffd"'


@pytest.fixture
def speaker() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Return a maker of ports at which the one connection that comes gets what a function says."""
    opened: list[socket.socket] = []

    def make(speak: Callable[[socket.socket], None]) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        opened.append(listening)

        def serve() -> None:
            connection = listening.accept()[0]
            opened.append(connection)
            connection.recv(65536)
            with suppress(OSError):  # the other side has given up
                speak(connection)

        threading.Thread(target=serve, daemon=True).start()
        return int(listening.getsockname()[1])

    yield make
    for one in opened:
        one.close()


Speaker = Callable[[Callable[[socket.socket], None]], int]


def test_an_answer_that_comes_byte_by_byte_is_given_up_in_time(speaker: Speaker) -> None:
    def dribble(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(40):
            time.sleep(0.1)
            connection.send(b"x")

    begun = time.monotonic()
    with pytest.raises(ConnectionLostError, match=r"no answer within 0\.5 s\. Is the head up"):
        http_to(speaker(dribble), timeout_s=0.5).ask("GET", "/")
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", id="half an answer"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf!", id="half of its chunks"),
    ],
)
def test_what_does_not_speak_whole_http_is_told_as_that(speaker: Speaker, words: bytes) -> None:
    def say(connection: socket.socket) -> None:
        connection.sendall(words)
        connection.shutdown(socket.SHUT_WR)

    with pytest.raises(ConnectionLostError, match="what answers there does not speak HTTP"):
        http_to(speaker(say)).ask("GET", "/")


def test_a_connection_that_is_cut_is_told_in_the_systems_words(speaker: Speaker) -> None:
    def cut(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    with pytest.raises(ConnectionLostError, match=r"cannot be reached: \[Errno 104\] Connection reset by peer\. Is"):
        http_to(speaker(cut)).ask("GET", "/")


def test_a_port_at_which_nothing_listens_is_named() -> None:
    with pytest.raises(ConnectionLostError, match=r"nothing listens at port 9\. Is the head up with its dashboard"):
        http_to(9).ask("GET", "/")


def test_a_name_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", nobody_is_known)
    with pytest.raises(ConnectionLostError, match=r"no host is called 'haed'\. Is the name right"):
        HeadHttp(ClusterAddress("http://haed:8265", "--address"), environ={}).ask("GET", "/")


def test_a_second_loss_has_its_own_cause(speaker: Speaker) -> None:
    """As where a job is sent again: the first loss is being dealt with, and explains nothing of the second."""
    silent = http_to(speaker(lambda _: time.sleep(1)), timeout_s=0.2)
    try:
        silent.ask("GET", "/")
    except ConnectionLostError:
        with pytest.raises(ConnectionLostError, match=r"nothing listens at port 9\."):
            http_to(9).ask("GET", "/")
    else:
        pytest.fail("the first was not lost")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a certificate for 127.0.0.1 that nobody but itself has signed, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    words = "-newkey rsa:2048 -nodes -days 2 -subj /CN=head -addext subjectAltName=IP:127.0.0.1"
    key = ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    subprocess.run(["openssl", "req", "-x509", *words.split(), *key], check=True, capture_output=True)
    (folder / "both").write_text((folder / "key").read_text() + (folder / "certificate").read_text())
    return folder / "both"


def test_a_certificate_of_ones_own_is_trusted_where_it_is_named(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hashed = tmp_path / "hashed"
    hashed.mkdir()
    (hashed / "own.pem").write_text((certificate.parent / "certificate").read_text())
    subprocess.run(["openssl", "rehash", str(hashed)], check=True, capture_output=True)
    with Head() as head:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        head.socket = context.wrap_socket(head.socket, server_side=True)
        with pytest.raises(ConnectionLostError, match=r"CERTIFICATE_VERIFY_FAILED.*set SSL_CERT_FILE to the file"):
            http_to(head.server_port, scheme="https").ask("GET", "/")
        monkeypatch.setenv("SSL_CERT_DIR", str(hashed))
        assert http_to(head.server_port, scheme="https").ask("GET", "/").status_code == 200
        monkeypatch.delenv("SSL_CERT_DIR")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert http_to(head.server_port, scheme="https").ask("GET", "/").status_code == 200


def test_https_to_what_speaks_http_is_told_to_be_wrong() -> None:
    with Head() as head, pytest.raises(ConnectionLostError, match="Is https:// right there"):
        http_to(head.server_port, scheme="https").ask("GET", "/")
