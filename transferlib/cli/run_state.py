"""How a run stands: what its folder says, with Ray's word beside it where it is a cluster's job."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from transferlib.errors import StoppedError
from transferlib.runs import RunFolder
from transferlib.submissions import Submission

START_S = 60.0
"""A job that has just been started neither holds its run yet nor is known to Ray."""
STALE_S = 600.0
"""A run whose cluster does not answer counts as lost when nothing in its folder has changed for so long."""
GOING_ON = ("preparing", "running", "evaluating")
LOST = "lost"
UNREACHABLE = "unreachable"
UNKNOWN = "unknown"
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class RunState:
    """Say where a run stands."""

    state: str
    """As `status.json` says; "lost" where a job that is gone left it unfinished."""
    exit_code: int | None
    """None while it runs."""
    updated_at: float
    """Unix time of the last change; 0: not known."""
    message: str
    """What it is doing, or why it ended."""
    ray: str | None = None
    """Ray's status of the job: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED; "unknown" where the head has forgotten it;
    "unreachable"; None where it was not asked, or runs on this machine."""
    is_certain: bool = True
    """Whether the job has said so itself; else Ray's word or a silence was what there was."""
    note: str = ""
    """What kept the answer from being a fresh one, for the user."""

    @property
    def is_over(self) -> bool:
        """Return whether nothing more will come of it by itself."""
        return self.state not in GOING_ON


def read_state(
    run: RunFolder, submission: Submission | None = None, ray: str | None = None, *, now: float | None = None
) -> RunState:
    """Return how a run stands by its folder, which must be up to date.

    Args:
        run: The folder.
        submission: Where its job went; None: it runs on this machine.
        ray: Ray's status of the job; None: not asked.
        now: Unix time; None: of this machine.
    """
    said = _said(run, ray)
    if said.is_over or not _is_gone(run, said, submission, time.time() if now is None else now):
        return said
    # The job may have said how it ended between the two looks.
    said = _said(run, ray)
    if said.is_over:
        return said
    state, exit_code, message = LOST, 1, "its job is gone and left it unfinished"
    if ray == "STOPPED":
        state, exit_code, message = "stopped", StoppedError.exit_code, "ended before it could say so itself"
    if ray == UNREACHABLE:
        message = f"its cluster does not answer, and nothing has come from it for {STALE_S / 60:.0f} minutes"
    return RunState(state, exit_code, said.updated_at, message, ray, is_certain=False)


def _said(run: RunFolder, ray: str | None) -> RunState:
    status: dict[str, Any] | None = run.read_status()
    if status is None:
        status = {"state": LOST, "message": f"{run.status.name} is missing; what is finished stays"}
    message = status.get("error") or status.get("message", "")
    return RunState(status.get("state", LOST), status.get("exit_code"), status.get("updated_at", 0.0), message, ray)


def _is_gone(run: RunFolder, said: RunState, submission: Submission | None, now: float) -> bool:
    """Say whether nobody works on a run that is not finished."""
    if run.is_locked():
        return False
    if submission is None:
        return now - said.updated_at > START_S or run.was_left_by_a_dead_process()
    match said.ray:
        case None | "PENDING" | "RUNNING":
            return False
        case "unreachable":
            return now - max(_last_sign(run), submission.submitted_at) > STALE_S
        case "unknown":
            return now - submission.submitted_at > START_S
        case _:
            return True


def _last_sign(run: RunFolder) -> float:
    """Return when a run's folder last changed, by the files that a job writes while it works; Unix time."""
    files = [run.status, run.job_log, *run.path.glob("trials/*/progress.json")]
    return max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
