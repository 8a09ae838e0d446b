"""Which cluster a command speaks to: the address typed, one of Ray's variables, or the cluster that `cluster up` made.

Standard library only, since every command asks this before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from transferlib.clusters import ClusterRecord
from transferlib.errors import UsageError

Origin = Literal["--address", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "submit cluster up"]

DEFAULT_PORT = 8265
"""Of Ray's dashboard and Jobs API."""
HERE = "local"
"""Given as an address: a Ray of the job's own on this machine, whatever else is recorded."""
VARIABLES: tuple[Origin, ...] = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""In the order in which Ray looks at them."""
EXPECTED = f"Give the address of the cluster's dashboard, like http://head:{DEFAULT_PORT}"


@dataclass(frozen=True)
class ClusterAddress:
    """Say where a cluster's Jobs API is, who said so, and where its token lies."""

    url: str
    """Without a slash at the end, e.g. "http://head:8265"; holds no secret."""
    origin: Origin
    token_path: Path | None = None
    """File with the cluster's token; None: where Ray itself looks for one."""

    def __str__(self) -> str:
        return self.url if self.origin == "--address" else f"{self.url} (from {self.origin})"


def resolve_address(
    typed: str | None, environ: Mapping[str, str], record: ClusterRecord | None
) -> ClusterAddress | None:
    """Return the cluster to speak to: the one typed, else RAY_API_SERVER_ADDRESS, RAY_ADDRESS, the one recorded.

    Args:
        typed: Of `--address`; "local" asks for none.
        environ: Environment variables.
        record: Of `submit cluster up`.

    Returns:
        None: no cluster, the job runs on this machine.

    Raises:
        UsageError: An address that is not one of a Jobs API.
    """
    named: list[tuple[Origin, str]] = [
        ("--address", typed or ""),
        *((name, environ.get(name, "")) for name in VARIABLES),
    ]
    for origin, text in named:
        if text.strip() == HERE:
            return None
        if text.strip():
            url = parse_address(text.strip(), origin)
            is_ours = record is not None and record.address.rstrip("/") == url
            return ClusterAddress(url, origin, Path(record.token_path) if record and is_ours else None)
    if record is None:
        return None
    return ClusterAddress(record.address.rstrip("/"), "submit cluster up", Path(record.token_path))


def parse_address(text: str, origin: str) -> str:
    """Return an address as a URL: `head`, `head:8265` and `http://head:8265/` become `http://head:8265`.

    Args:
        text: What was given.
        origin: Who gave it, for the error's text.

    Raises:
        UsageError: It is of another kind, or carries what an address should not.
    """
    shown = f"{origin} {text}" if origin.startswith("-") else f"{origin}={text}"
    if text == "auto":
        raise UsageError(f"{shown}: which cluster that is cannot be told from here. {EXPECTED}.")
    scheme, mark, rest = text.partition("://")
    if mark and scheme.lower() == "ray":
        near = rest.partition("/")[0].rpartition(":")[0] or rest
        raise UsageError(
            f"{shown}: Ray Client addresses (ray://, port 10001) cannot take jobs. "
            f"{EXPECTED}; here probably http://{near}:{DEFAULT_PORT}."
        )
    if mark and scheme.lower() not in ("http", "https"):
        raise UsageError(f"{shown}: {scheme}:// is no way to a Jobs API; http:// and https:// are. {EXPECTED}.")
    parts = urlsplit(text if mark else f"http://{text}")
    if "@" in parts.netloc:
        # Not shown: what stands before the @ is a secret.
        raise UsageError(f"{origin}: an address with a user or a password would end up in logs. {EXPECTED}.")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{shown}: {error}. {EXPECTED}.") from None
    if not host or parts.query or parts.fragment or any(character.isspace() for character in text):
        raise UsageError(f"{shown} is no address. {EXPECTED}.")
    has_port = port is not None or bool(mark)
    netloc = parts.netloc if has_port else f"{parts.netloc.rstrip(':')}:{DEFAULT_PORT}"
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"
