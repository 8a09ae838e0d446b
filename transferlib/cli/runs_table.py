"""The runs of a folder, newest first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferlib.cli.outcome import spread
from transferlib.cli.tables import text_table
from transferlib.runs import RunFolder, read_json

START_S = 60.0
"""A job that has just been started does not hold its run yet."""
GOING_ON = ("preparing", "running", "evaluating")


@dataclass(frozen=True)
class RunRow:
    """Say of one run how it stands."""

    id: str
    state: str
    """As `status.json` says; "lost" where a job that is gone left it unfinished."""
    exit_code: int | None
    """None while it runs."""
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
    for spec in sorted(runs_dir.glob("*/spec.yaml"), key=_age, reverse=True):
        run = RunFolder(spec.parent.absolute())
        status = read_json(run.status) or {}
        state, exit_code = status.get("state", "lost"), status.get("exit_code")
        is_quiet = time.time() - status.get("updated_at", 0.0) > START_S
        if state in GOING_ON and is_quiet and not run.is_locked():
            state, exit_code = "lost", 1
        arms = (read_json(run.leaderboard("json")) or {}).get("arms") or [None]
        yield RunRow(run.run_id, state, exit_code, status.get("updated_at", 0.0), arms[0], str(run.path))


def _age(spec: Path) -> tuple[str, int]:
    """Return when a run was made: the second from its id, within it the file's time."""
    second = "-".join(spec.parent.name.split("-")[:2])
    return second, spec.stat().st_mtime_ns


def runs_lines(rows: list[RunRow]) -> list[str]:
    """Return the runs as a table."""
    cells = [
        [
            row.id,
            row.state,
            "" if row.exit_code is None else str(row.exit_code),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row.updated_at)) if row.updated_at else "",
            row.best["arm"] if row.best else "",
            spread(row.best["val"]["accuracy"]) if row.best else "",
        ]
        for row in rows
    ]
    return text_table(["run", "state", "exit", "changed", "best arm", "val acc"], cells, left=5)
