"""HTTP to a head's dashboard: a time limit on everything, the cluster's token, and errors that say what to do.

Ray's own client has no limits, is overridden by RAY_ADDRESS whatever it is told, and takes a second to import. The
REST interface it speaks is documented and small.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies

from transferlib.addresses import DEFAULT_PORT, ClusterAddress
from transferlib.errors import ClusterUnreachableError

T = TypeVar("T")

DEFAULT_TOKEN = "~/.ray/auth_token"
LOOPBACKS = frozenset({"localhost", "127.0.0.1", "::1"})


class ConnectionLostError(ClusterUnreachableError):
    """Report that no whole answer came: whether the head did what was asked is not known."""


class HeadHttp:
    """Ask a head's dashboard.

    Args:
        address: Of the dashboard.
        timeout_s: Limit of a call, from name look-up to the last byte.
        environ: Environment variables that name the token; None: this process's.
    """

    def __init__(
        self, address: ClusterAddress, *, timeout_s: float = 10.0, environ: Mapping[str, str] | None = None
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._environ = os.environ if environ is None else environ
        token = find_token(address, self._environ)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._proxies = _proxies(address.url)
        self._verify = _trusted(os.environ)

    def ask(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None = None,
        json_data: Any = None,
        timeout_s: float | None = None,
    ) -> requests.Response:
        """Send a request and return the answer, whatever its status, but for those of a closed door.

        Args:
            method: GET, POST, PUT or DELETE.
            path: From the slash on.
            data: Body as bytes.
            json_data: Body as a value.
            timeout_s: Limit of this call; None: the usual one.

        Raises:
            ConnectionLostError: No connection, or no whole answer in time.
            ClusterUnreachableError: The token is missing or wrong, or this is no Ray head.
        """
        limit = self.timeout_s if timeout_s is None else timeout_s
        answer = self._send(method, path, limit, headers=self._headers, data=data, json=json_data)
        self._check(answer)
        return answer

    def turns_strangers_away(self, path: str) -> bool:
        """Return whether a request without any token is refused.

        Args:
            path: From the slash on.

        Raises:
            ConnectionLostError: As `ask`.
        """
        return self._send("GET", path, self.timeout_s).status_code in (401, 403)

    def _send(self, method: str, path: str, limit_s: float, **more: Any) -> requests.Response:
        def send() -> requests.Response:
            # One session a call: no cookies, and no connection that the head has closed since.
            with requests.Session() as session:
                session.trust_env = False  # a login in ~/.netrc would take the token's place
                request = session.prepare_request(requests.Request(method, self.address.url + path, **more))
                adapter = session.get_adapter(self.address.url)
                try:
                    # Past the session, which takes a redirect apart even where it does not follow it: the token would
                    # travel with it, to wherever it leads.
                    answer = adapter.send(request, timeout=limit_s, verify=self._verify, proxies=self._proxies)
                    _ = answer.content  # read whole, within the limit
                except (OSError, HTTPException) as error:
                    raise _first_cause(error) from None
                return answer

        try:
            answer = within(limit_s, send)
        except (OSError, HTTPException) as error:
            raise ConnectionLostError(self._explain(error, limit_s)) from None
        answer.encoding = "utf-8"
        return answer

    def _check(self, answer: requests.Response) -> None:
        if answer.status_code == 401 and not self._headers:
            raise ClusterUnreachableError(
                f"The cluster at {self.address} wants a token, and there is none here. Put the cluster's token into "
                f"{DEFAULT_TOKEN}, or set RAY_AUTH_TOKEN_PATH to the file that holds it."
            )
        if answer.status_code in (401, 403):
            where = token_source(self.address, self._environ) or "nowhere"
            raise ClusterUnreachableError(
                f"The cluster at {self.address} does not take the token from {where} ({answer.status_code}: "
                f"{_first_line(answer.text)}). Put the cluster's own token there, or set RAY_AUTH_TOKEN_PATH to the "
                "file that holds it."
            )
        if 300 <= answer.status_code < 400:
            raise ClusterUnreachableError(
                f"{self.address} answers with a redirect ({answer.status_code}), as no Ray head does. Give the address "
                f"of the dashboard itself (port {DEFAULT_PORT} unless changed), or open a tunnel to it."
            )

    def _explain(self, cause: BaseException, limit_s: float) -> str:
        parts = urlsplit(self.address.url)
        start = f"The cluster at {self.address} cannot be reached: "
        if isinstance(cause, socket.gaierror):
            return f"{start}no host is called {parts.hostname!r}. Is the name right, and known on this machine?"
        if isinstance(cause, TimeoutError):
            return f"{start}no answer within {limit_s:g} s. Is the head up, and does no firewall stand between?"
        if isinstance(cause, ConnectionRefusedError):
            return f"{start}nothing listens at port {parts.port or _port_of(parts.scheme)}. {self._next_step()}"
        if isinstance(cause, ssl.SSLError):
            return (
                f"{start}{cause}. Is https:// right there? A certificate of your own: set SSL_CERT_FILE to the file "
                "that holds its issuer."
            )
        if isinstance(cause, HTTPException):
            return (
                f"{start}what answers there does not speak HTTP, as the port that nodes join at does not. "
                f"The dashboard's port is {DEFAULT_PORT} unless changed."
            )
        return f"{start}{str(cause).rstrip('.') or type(cause).__name__}. {self._next_step()}"

    def _next_step(self) -> str:
        if self.address.origin == "submit cluster up":
            return "It has ended: submit cluster down forgets it, submit cluster up starts another."
        return (
            f"Is the head up with its dashboard (port {DEFAULT_PORT} unless changed), and bound to more than loopback?"
        )


def within(limit_s: float, call: Callable[[], T]) -> T:
    """Return what a call returns, or give up on it.

    A socket's own time limit covers neither the look-up of a name nor an answer that comes byte by byte.

    Args:
        limit_s: Seconds.
        call: Left behind in a thread of its own when it takes longer.

    Raises:
        TimeoutError: It took longer.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # handed over, whatever it is
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True, name="head-http").start()
    return outcome.result(limit_s)


def find_token(address: ClusterAddress, environ: Mapping[str, str]) -> str:
    """Return the cluster's token, or "": its own file's, else RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    Args:
        address: Knows the token's file for a cluster of ours.
        environ: Environment variables.

    Raises:
        ClusterUnreachableError: The file that was named cannot be read, or what is there can be no token.
    """
    source = token_source(address, environ)
    if source in ("", "RAY_AUTH_TOKEN"):
        token = environ.get("RAY_AUTH_TOKEN", "").strip()
    else:
        try:
            token = Path(source).expanduser().read_text(errors="replace").strip()
        except OSError as error:
            raise ClusterUnreachableError(
                f"The token of the cluster at {address} cannot be read from {source}: {error.strerror}. "
                "Set RAY_AUTH_TOKEN_PATH to the file that holds it."
            ) from None
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ClusterUnreachableError(
            f"What {source} holds is no token of a cluster: a token is one word of plain letters and digits on one "
            "line. Set RAY_AUTH_TOKEN_PATH to the file that holds it."
        )
    return token


def token_source(address: ClusterAddress, environ: Mapping[str, str]) -> str:
    """Return where the token comes from, a file's path or RAY_AUTH_TOKEN; "" where there is none."""
    if address.token_path is not None:
        return str(address.token_path)
    if environ.get("RAY_AUTH_TOKEN", "").strip():
        return "RAY_AUTH_TOKEN"
    if environ.get("RAY_AUTH_TOKEN_PATH"):
        return environ["RAY_AUTH_TOKEN_PATH"]
    return DEFAULT_TOKEN if Path(DEFAULT_TOKEN).expanduser().is_file() else ""


def _proxies(url: str) -> dict[str, str]:
    """Return the proxy that the environment names for an address: none to loopback, and none for any scheme at all."""
    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    found = {} if host in LOOPBACKS else get_environ_proxies(url)
    return {scheme: found[scheme]} if scheme in found else {}


def _trusted(environ: Mapping[str, str]) -> str | bool:
    """Return whom this machine trusts, by SSL_CERT_FILE and SSL_CERT_DIR too; requests has a list of its own."""
    paths = ssl.get_default_verify_paths()
    if environ.get("SSL_CERT_DIR") and not environ.get("SSL_CERT_FILE"):
        return paths.capath or paths.cafile or True
    return paths.cafile or paths.capath or True


def _first_cause(error: BaseException) -> BaseException:
    """Return the innermost error of the system or of HTTP, which requests and urllib3 wrap in theirs."""
    found: BaseException = error
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError | HTTPException):
            found = inner
        inner = inner.__cause__ or (None if inner.__suppress_context__ else inner.__context__)
    return found


def _port_of(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]
