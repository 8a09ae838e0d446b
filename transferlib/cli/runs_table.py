"""The runs of a folder, newest first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transferlib.cli.outcome import key_of, saved_leaderboard
from transferlib.cli.run_state import GOING_ON, LOST, UNREACHABLE, UNREADABLE, RunState, read_state
from transferlib.cli.run_view import RunView
from transferlib.cli.tables import text_table
from transferlib.errors import RunFolderError, TransferlibError
from transferlib.runs import RunFolder
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
    model: Mapping[str, Any] | None
    """The model handed over, as `leaderboard.json` has it; None: there is none yet."""
    path: str
    message: str = ""
    """What it is doing, why it ended, or why it cannot be read."""


def find_runs(runs_dir: Path) -> Iterator[RunRow]:
    """Yield the runs of a folder, newest first. One that cannot be read hides no other.

    Args:
        runs_dir: Need not exist.
    """
    unreachable: set[str] = set()
    for spec in sorted(runs_dir.glob("*/spec.yaml"), key=_age, reverse=True):
        run = RunFolder(spec.parent.absolute())
        try:
            model = (saved_leaderboard(run) or {}).get("model")
            submission = Submission.load(run)
            state = read_state(run) if submission is None else _look(run, submission, unreachable)
        except TransferlibError as error:
            submission, model = None, None
            state = RunState(UNREADABLE, None, spec.stat().st_mtime, str(error))
        address = None if submission is None else submission.address
        yield RunRow(
            *(run.run_id, state.state, state.exit_code, state.ray, address, state.updated_at, model, str(run.path)),
            message=state.message,
        )


def _look(run: RunFolder, submission: Submission, unreachable: set[str]) -> RunState:
    """Return how a cluster's run stands; a cluster that does not answer is not asked about the next."""
    if (run.read_status() or {}).get("state") not in GOING_ON:
        return read_state(run, submission)
    is_asked = submission.address not in unreachable
    try:
        state = RunView(run).look(asks=is_asked)
    except RunFolderError as error:  # not in the storage: what is shown is what was last seen
        state = replace(read_state(run, submission, UNREACHABLE), message=str(error))
    if state.ray == UNREACHABLE:
        unreachable.add(submission.address)
    return state if is_asked else read_state(run, submission, UNREACHABLE)


def _age(spec: Path) -> tuple[str, int]:
    """Return when a run was made: the second from its id, within it the file's time."""
    second = "-".join(spec.parent.name.split("-")[:2])
    return second, spec.stat().st_mtime_ns


def runs_lines(rows: list[RunRow]) -> list[str]:
    """Return the runs as a table, and below it why one is lost or cannot be read."""
    cells = [
        [
            row.id,
            row.state if row.ray in (None, "RUNNING") else f"{row.state} (Ray: {row.ray.lower()})",
            "" if row.exit_code is None else str(row.exit_code),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row.updated_at)) if row.updated_at else "",
            f"{row.model['arm']} s{key_of(row.model).seed_name}" if row.model else "",
            f"{row.model['val']:.3f}" if row.model else "",
            f"{row.model['test']['value']:.3f}" if row.model and row.model["test"] else "",
        ]
        for row in rows
    ]
    table = text_table(["run", "state", "exit", "changed", "model", "val", "test"], cells, left=5)
    return [*table, *(f"{row.id}: {row.message}" for row in rows if row.state in (LOST, UNREADABLE))]
