"""A job on a cluster, as the command line sees it: through its run folder, with Ray's word beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from transferlib.cli.executor import tail_text
from transferlib.cli.run_view import SETTLE_S, mirror_of, stop_job
from transferlib.errors import ClusterUnreachableError, DamagedFileError, TransferlibError
from transferlib.runs import ENDED, RunFolder
from transferlib.submissions import Submission

if TYPE_CHECKING:
    from transferlib.on_ray.jobs import JobsClient, JobState

LOOK_EVERY_S = 1.0
JOB_LOG = "log/job.log"


class RemoteJob:
    """One job on a cluster; goes on without this process.

    Storage and cluster are looked at in a thread: one that hangs must not keep Ctrl-C from its user.

    Args:
        run: Its folder here.
        submission: Where it went.
        client: Of that cluster.
    """

    outlives_us = True

    def __init__(self, run: RunFolder, submission: Submission, client: JobsClient) -> None:
        self._run = run
        self._submission = submission
        self._client = client
        self._mirror = mirror_of(run, submission)
        self._looker: threading.Thread | None = None
        self._looked_at = float("-inf")
        self._has_looked = False
        self._problem: Exception | None = None
        self._is_storage_away = False
        self._ended_at: float | None = None
        self._state: JobState | None = None
        self._is_unreachable = False
        self.news: list[str] = []
        """Lines for the user that came up while looking; whoever shows them takes them out."""

    def poll(self) -> int | None:
        """Return the job's exit code; None while it runs, also while the cluster does not answer."""
        self._look_if_due()
        try:
            status = self._run.read_status() or {}
        except DamagedFileError:  # the next look may see another
            status = {}
        if status.get("state") in ENDED:
            return int(status.get("exit_code", 1))
        state = self._state
        if (
            not self._has_looked
            or self._is_unreachable
            or (state is not None and state.status in ("PENDING", "RUNNING"))
        ):
            self._ended_at = None
            return None
        now = time.monotonic()
        self._ended_at = self._ended_at or now
        if now - self._ended_at < SETTLE_S:
            return None
        return 1 if state is None else state.exit_code or 1

    def ask_to_stop(self) -> None:
        """Ask the job to stop; see `stop_job`."""
        stop_job(self._run, self._submission, self._client)

    def kill(self) -> None:
        """Do nothing: what runs on a cluster is ended by `submit stop`."""

    def leaving_lines(self) -> list[str]:
        """Return what to say when this process leaves the job to itself."""
        run_id = self._run.run_id
        return [
            f"The job goes on at {self._submission.address}.",
            f"  submit logs -f {run_id}    to follow it again",
            f"  submit stop {run_id}       to stop it; checkpoints are kept",
        ]

    def log_tail(self) -> str:
        """Return the end of the job's log: its own, or else Ray's, which has what went wrong before it began."""
        self._pull([JOB_LOG])
        if self._run.job_log.exists():
            return tail_text(self._run.job_log.read_text(errors="replace"), f"Log: submit logs {self._run.run_id}")
        try:
            text = self._client.logs(self._submission.submission_id)
        except TransferlibError as error:
            text = f"(no log: {error})"
        message = self._state.message if self._state is not None else "The cluster knows nothing of this job."
        return tail_text(f"{text.rstrip()}\n{message}".strip(), f"Ray's log of job {self._submission.submission_id}")

    def _look_if_due(self) -> None:
        if self._problem is not None:
            raise self._problem
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S or (self._looker is not None and self._looker.is_alive()):
            return
        self._looked_at = now
        self._looker = threading.Thread(target=self._look, name="Looking at the job", daemon=True)
        self._looker.start()

    def _look(self) -> None:
        try:
            self._pull([])
            self._ask()
            self._has_looked = True
        except Exception as error:  # nothing that is expected: the next poll raises it
            self._problem = error

    def _pull(self, also: Collection[str]) -> None:
        """Bring the folder here up to date where it mirrors one elsewhere; that this fails is told once."""
        if self._mirror is None:
            return
        try:
            self._mirror.pull(also)
        except TransferlibError as error:
            if not self._is_storage_away:
                self.news.append(f"The storage does not answer; what is shown may be old. {error}")
            self._is_storage_away = True
        else:
            self._is_storage_away = False

    def _ask(self) -> None:
        try:
            self._state = self._client.find(self._submission.submission_id)
        except ClusterUnreachableError as error:
            if not self._is_unreachable:
                self.news.append(f"{error}\nThe job may go on all the same; asking on.")
            self._is_unreachable = True
        else:
            if self._is_unreachable:
                self.news.append("The cluster answers again.")
            self._is_unreachable = False
