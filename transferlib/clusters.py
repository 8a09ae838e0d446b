"""The cluster that `submit cluster up` started for this user: where it is, and how to stop just that one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
    """Return the cluster that `submit cluster up` started, or None."""
    try:
        return ClusterRecord.from_json((state_dir() / FILE_NAME).read_text())
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def record_cluster(record: ClusterRecord) -> None:
    """Remember a cluster for later commands of this user."""
    from transferlib.runs import write_atomic

    folder = state_dir()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(folder / FILE_NAME, record.to_json() + "\n")


def forget_cluster() -> None:
    """Forget the cluster of this user."""
    (state_dir() / FILE_NAME).unlink(missing_ok=True)
