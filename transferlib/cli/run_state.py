"""How a run stands: what its folder says, with Ray's word beside it where it is a cluster's job."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferlib.errors import RunFolderError, StoppedError, TransferlibError
from transferlib.runs import RunFolder, read_json
from transferlib.submissions import Submission

if TYPE_CHECKING:
    from transferlib.on_ray.jobs import JobsClient
    from transferlib.storage.client_mirror import ClientMirror

START_S = 60.0
"""A job that has just been started neither holds its run yet nor is known to Ray."""
GOING_ON = ("preparing", "running", "evaluating")
ASK_TIMEOUT_S = 5.0
"""For Ray's word, which a command can do without."""
LOST = "lost"
UNREACHABLE = "unreachable"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class RunState:
    """Say where a run stands."""

    state: str
    """As `status.json` says; "lost" where a job that is gone left it unfinished."""
    exit_code: int | None
    """None while it runs."""
    updated_at: float
    """Unix time of the last change."""
    message: str
    """What it is doing, or why it ended."""
    ray: str | None = None
    """Ray's status of the job: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED; "unknown" where the head has forgotten it;
    "unreachable"; None for a run on this machine."""

    @property
    def is_over(self) -> bool:
        """Return whether nothing more will come of it by itself."""
        return self.state not in GOING_ON


def mirror_of(run: RunFolder, submission: Submission) -> ClientMirror | None:
    """Return what keeps this run folder like the one in the storage; None where they are the same.

    Args:
        run: The folder here.
        submission: Says where the other is.
    """
    if submission.storage is None:
        return None
    from transferlib.storage.client_mirror import ClientMirror
    from transferlib.storage.locations import open_location

    return ClientMirror(open_location(f"{submission.storage.rstrip('/')}/{run.run_id}"), run)


def refresh(run: RunFolder) -> Submission | None:
    """Bring a run folder up to date with the storage, where it is a mirror; return where its job went.

    Args:
        run: Of this machine or a cluster.

    Raises:
        StorageError: The storage cannot be read.
    """
    submission = Submission.load(run)
    if submission is not None and (mirror := mirror_of(run, submission)) is not None:
        mirror.pull()
    return submission


def client_for(submission: Submission, timeout_s: float = ASK_TIMEOUT_S) -> JobsClient:
    """Return a client of the cluster that a job went to.

    Raises:
        ClusterUnreachableError: It does not answer.
    """
    from transferlib.addresses import ClusterAddress
    from transferlib.on_ray.jobs import JobsClient

    token_path = Path(submission.token_path) if submission.token_path else None
    return JobsClient(ClusterAddress(submission.address, "--address", token_path), timeout_s=timeout_s)


def ask_ray(submission: Submission) -> str:
    """Return Ray's status of a job, or "unknown" or "unreachable"."""
    try:
        state = client_for(submission).find(submission.submission_id)
    except TransferlibError:
        return UNREACHABLE
    return UNKNOWN if state is None else state.status


def read_state(run: RunFolder, ray: str | None = None) -> RunState:
    """Return how a run stands by its folder, which must be up to date.

    Args:
        run: The folder.
        ray: Ray's status of its job, as `ask_ray` says it; None: the job runs on this machine.
    """
    status: dict[str, Any] = read_json(run.status) or {"state": LOST}
    state, exit_code = status.get("state", LOST), status.get("exit_code")
    updated_at, message = status.get("updated_at", 0.0), status.get("error") or status.get("message", "")
    if state in GOING_ON and time.time() - updated_at > START_S and _is_gone(run, ray):
        state, exit_code = LOST, 1
        message = "its job is gone and left it unfinished"
        if ray == "STOPPED":
            state, exit_code, message = "stopped", StoppedError.exit_code, "ended before it could say so itself"
    return RunState(state, exit_code, updated_at, message, ray)


def _is_gone(run: RunFolder, ray: str | None) -> bool:
    if ray is None:
        return not run.is_locked()
    return ray not in ("PENDING", "RUNNING", UNREACHABLE)


def look_at(run: RunFolder) -> RunState:
    """Return how a run stands now; asks the cluster where it is one's job that has not ended."""
    submission = refresh(run)
    if submission is None:
        return read_state(run)
    return read_state(run, ask_ray(submission))


def stop_run(run: RunFolder) -> str:
    """Ask a run's job to stop: trials keep a checkpoint at their next step, and the job ends.

    Args:
        run: The folder.

    Returns:
        What was done, for the user.

    Raises:
        RunFolderError: It has ended already.
    """
    state = look_at(run)
    if state.is_over:
        raise RunFolderError(f"Run {run.run_id} is not running: it is {state.state}.")
    submission = Submission.load(run)
    if submission is None:
        run.stop_flag.touch()
        return f"Asked run {run.run_id} to stop; checkpoints are kept."
    return stop_job(run, submission, None)


def stop_job(run: RunFolder, submission: Submission, client: JobsClient | None) -> str:
    """Ask a cluster's job to stop: through the storage, and through Ray, which then calls it stopped.

    Args:
        run: The folder here.
        submission: Where the job went.
        client: Of the cluster; None: make one.

    Returns:
        What was done, for the user.
    """
    if (mirror := mirror_of(run, submission)) is not None:
        mirror.ask_to_stop()
    else:
        run.stop_flag.touch()
    try:
        (client or client_for(submission)).stop(submission.submission_id)
    except TransferlibError as error:
        return (
            f"Asked run {run.run_id} to stop through its folder; checkpoints are kept. The cluster itself could not be "
            f"told: {error}"
        )
    return f"Asked run {run.run_id} to stop at {submission.address}; checkpoints are kept."
