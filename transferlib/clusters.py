"""The cluster that `submit cluster up` started for this user: where it is, and how to stop just that one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transferlib.errors import UsageError
from transferlib.records import JsonRecord

FILE_NAME = "cluster.json"


@dataclass(frozen=True)
class ClusterRecord(JsonRecord):
    """Say how a cluster of this user's is reached and ended."""

    address: str
    """Of its dashboard and Jobs API, e.g. "http://127.0.0.1:8265"."""
    gcs_address: str
    """host:port that nodes join at."""
    token_path: str
    """File with the cluster's token, readable by this user only."""
    temp_dir: str
    """Ray's temporary folder, which goes with the cluster."""
    node_pids: list[int]
    """Process of each node, the head's first."""
    started_at: float
    """Unix time."""


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Return where what outlives a command is kept: `$XDG_STATE_HOME/transferlib` or `~/.local/state/transferlib`.

    Args:
        environ: Environment variables; None: this process's.
    """
    environ = os.environ if environ is None else environ
    home = environ.get("XDG_STATE_HOME", "")
    return (Path(home) if home else Path("~/.local/state").expanduser()) / "transferlib"


def recorded_cluster() -> ClusterRecord | None:
    """Return the cluster that `submit cluster up` started, or None where there is no record.

    Raises:
        UsageError: The record is damaged, so nobody can say whether a cluster runs.
    """
    path = state_dir() / FILE_NAME
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}), so a cluster may run unseen.") from None
    try:
        record = ClusterRecord.from_json(text)
    except (ValueError, TypeError):
        record = None
    if record is None or not _is_whole(record):
        raise UsageError(
            f"{path} is damaged: it does not say which cluster `submit cluster up` started. A cluster's nodes are the "
            "processes with loopback_node.py in their command line: end them with kill, delete that file, and start a "
            "new cluster."
        )
    return record


def record_cluster(record: ClusterRecord) -> None:
    """Remember a cluster for later commands of this user."""
    from transferlib.runs import write_atomic

    folder = state_dir()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(folder / FILE_NAME, record.to_json() + "\n")


def forget_cluster() -> None:
    """Forget the cluster of this user."""
    (state_dir() / FILE_NAME).unlink(missing_ok=True)


def _is_whole(record: ClusterRecord) -> bool:
    texts = (record.address, record.gcs_address, record.token_path, record.temp_dir)
    pids = record.node_pids
    return (
        all(isinstance(text, str) and text for text in texts)
        and isinstance(pids, list)
        and all(isinstance(pid, int) for pid in pids)
        and isinstance(record.started_at, int | float)
    )
