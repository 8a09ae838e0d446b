"""The runs of a folder, newest first."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferlib.cli.outcome import spread
from transferlib.cli.run_state import GOING_ON, UNREACHABLE, ask_ray, read_state, refresh
from transferlib.cli.tables import text_table
from transferlib.errors import StorageError
from transferlib.runs import RunFolder, read_json
from transferlib.submissions import Submission


@dataclass(frozen=True)
class RunRow:
    """Say of one run how it stands."""

    id: str
    state: str
    """As `status.json` says; "lost" where a job that is gone left it unfinished."""
    exit_code: int | None
    """None while it runs."""
    ray: str | None
    """Ray's status of a cluster's job that has not ended; None where it was not asked."""
    address: str | None
    """Of the cluster that the job went to; None: it ran on this machine."""
    updated_at: float
    """Unix time."""
    best: Mapping[str, Any] | None
    """The first arm of the leaderboard."""
    path: str


def find_runs(runs_dir: Path) -> Iterator[RunRow]:
    """Yield the runs of a folder, newest first.

    Args:
        runs_dir: Need not exist.
    """
    unreachable: set[str] = set()
    for spec in sorted(runs_dir.glob("*/spec.yaml"), key=_age, reverse=True):
        run = RunFolder(spec.parent.absolute())
        submission = Submission.load(run)
        ray = None if submission is None else _ask(run, submission, unreachable)
        state = read_state(run, UNREACHABLE if submission is not None and ray is None else ray)
        arms = (read_json(run.leaderboard("json")) or {}).get("arms") or [None]
        address = None if submission is None else submission.address
        yield RunRow(run.run_id, state.state, state.exit_code, ray, address, state.updated_at, arms[0], str(run.path))


def _ask(run: RunFolder, submission: Submission, unreachable: set[str]) -> str | None:
    """Ask a cluster about a job that has not ended; one that does not answer is not asked about the next."""
    if (read_json(run.status) or {}).get("state") not in GOING_ON:
        return None
    if submission.address in unreachable:
        return UNREACHABLE
    ray = ask_ray(submission)
    if ray == UNREACHABLE:
        unreachable.add(submission.address)
    with contextlib.suppress(StorageError):  # what is shown is then what was last seen
        refresh(run)
    return ray


def _age(spec: Path) -> tuple[str, int]:
    """Return when a run was made: the second from its id, within it the file's time."""
    second = "-".join(spec.parent.name.split("-")[:2])
    return second, spec.stat().st_mtime_ns


def runs_lines(rows: list[RunRow]) -> list[str]:
    """Return the runs as a table."""
    cells = [
        [
            row.id,
            row.state if row.ray in (None, "RUNNING") else f"{row.state} (Ray: {row.ray.lower()})",
            "" if row.exit_code is None else str(row.exit_code),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row.updated_at)) if row.updated_at else "",
            row.best["arm"] if row.best else "",
            spread(row.best["val"]["accuracy"]) if row.best else "",
        ]
        for row in rows
    ]
    return text_table(["run", "state", "exit", "changed", "best arm", "val acc"], cells, left=5)
