"""Watch a job to its end, and turn signals, its status and its exit code into ours."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

from transferlib.cli.executor import StopSignals
from transferlib.cli.following import Follower, Snapshot
from transferlib.errors import EXIT_INTERRUPTED, StoppedError
from transferlib.runs import ENDED

POLL_S = 0.2
STOPPING = "Stopping: checkpoints are kept. Press Ctrl-C again to abort at once."


class Job(Protocol):
    """Be a job that runs somewhere."""

    outlives_us: bool
    """Whether Ctrl-C and a closed terminal leave it alone."""
    news: list[str]
    """Lines for the user about the job's whereabouts; whoever shows them takes them out."""

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the job runs."""
        ...

    def ask_to_stop(self) -> None:
        """Ask it to stop cleanly."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def leaving_lines(self) -> list[str]:
        """Return what to say when this process leaves the job to itself."""
        ...

    def log_tail(self) -> str:
        """Return the end of its log, for the user."""
        ...


class View(Protocol):
    """Show a run while it goes."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *exception: object) -> None:
        """End; the last state stays to be seen."""
        ...

    def say(self, text: str) -> None:
        """Print a line of talk."""
        ...

    def show(self, snapshot: Snapshot) -> None:
        """Show where the run stands."""
        ...


@dataclass(frozen=True)
class Outcome:
    """Say how a job ended."""

    state: str
    """done, failed, stopped, interrupted, aborted, died, or left (where the job goes on without us)."""
    exit_code: int
    text: str
    """For the user: the error, or why there is none; empty where all is said."""
    snapshot: Snapshot
    can_go_on: bool = True
    """Whether --resume makes sense; not where what was asked for is itself wrong."""


def watch(job: Job, follower: Follower, view: View, signals: StopSignals) -> Outcome:
    """Show a job until it has ended, or until we are told to leave one that goes on without us.

    Args:
        job: Running.
        follower: Reads the folder.
        view: Shows it.
        signals: In force already, so that none is lost between the job's start and here.
    """
    is_stopping = False
    with view:
        while True:
            code = job.poll()
            snapshot = follower.take()
            with hang_up_is_no_error():
                view.show(snapshot)
                while job.news:
                    view.say(job.news.pop(0))
            if code is not None:
                break
            if signals.is_leaving_wanted and job.outlives_us:
                return Outcome("left", EXIT_INTERRUPTED, "\n".join(job.leaving_lines()), snapshot, can_go_on=False)
            if signals.num_interrupts > 1:
                job.kill()
                return Outcome("aborted", EXIT_INTERRUPTED, "Aborted.", follower.take())
            if signals.is_stop_wanted and not is_stopping:
                is_stopping = True
                job.ask_to_stop()
                with hang_up_is_no_error():
                    view.say(STOPPING if signals.num_interrupts else "Stopping: checkpoints are kept.")
            time.sleep(POLL_S)
    return _outcome(job, code, snapshot, signals)


_GONE = frozenset({errno.EIO, errno.EPIPE, errno.EBADF, errno.ENXIO, errno.ENOTTY, errno.ECONNRESET, errno.ESTALE})
"""What writing to a terminal or pipe ends in whose other end has gone."""


@contextlib.contextmanager
def hang_up_is_no_error() -> Iterator[None]:
    """Go on where the terminal is gone: the job must still be stopped cleanly. What else went wrong is raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process


def _outcome(job: Job, code: int, snapshot: Snapshot, signals: StopSignals) -> Outcome:
    """Decide what to say and to return; a job that got done before the signal reached it is done."""
    state, error = snapshot.status.get("state", ""), snapshot.status.get("error", "")
    if state == "done":
        return Outcome("done", snapshot.status.get("exit_code", code), snapshot.status.get("message", ""), snapshot)
    if state == "stopped":
        error = ""  # what is finished and how to go on is said in any case
    if signals.num_interrupts:
        return Outcome("interrupted", EXIT_INTERRUPTED, error, snapshot)
    if signals.is_terminated:
        return Outcome("stopped", StoppedError.exit_code, error, snapshot)
    if state in ENDED:
        is_crash = state == "failed" and bool(snapshot.status.get("traceback"))
        text = f"{error}\n{job.log_tail()}" if is_crash else error
        can_go_on = is_crash or state == "stopped"
        return Outcome(state, snapshot.status.get("exit_code", code or 1), text, snapshot, can_go_on)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return Outcome("died", 1, f"The job {how} without a result.\n{job.log_tail()}", snapshot)
