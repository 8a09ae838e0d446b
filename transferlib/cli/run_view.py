"""Look at one run again and again, and stop it: its folder, the storage that the folder mirrors, and its cluster."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from transferlib.cli.run_state import UNKNOWN, UNREACHABLE, UNREADABLE, RunState, read_state
from transferlib.errors import DamagedFileError, RunFolderError, StorageError, TransferlibError
from transferlib.runs import RunFolder
from transferlib.submissions import Submission

if TYPE_CHECKING:
    from transferlib.on_ray.jobs import JobsClient
    from transferlib.storage.client_mirror import ClientMirror

ASK_TIMEOUT_S = 5.0
"""For Ray's word, which a command can do without."""
SETTLE_S = 10.0
"""Ray may say that a job has ended before what the job wrote last is seen here."""


class RunView:
    """One run, as the commands that look at it and steer it see it. What answers once is asked again, not made anew.

    Args:
        run: Its folder here.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._mirror: tuple[str, ClientMirror] | None = None
        self._client: tuple[str, JobsClient] | None = None
        self._doubtful_since: float | None = None

    @property
    def submission(self) -> Submission | None:
        """Return where the run's job is; None: on this machine."""
        return Submission.load(self.run)

    def glance(self, *, asks: bool = False, also: Collection[str] = ()) -> RunState:
        """Return how the run stands now, for whom that matters less than what else is there.

        A `status.json` that is damaged is told in the message.

        Args:
            asks: As for `look`.
            also: As for `look`.

        Raises:
            RunFolderError: The storage holds no such run.
        """
        try:
            return self.look(asks=asks, also=also)
        except DamagedFileError as error:
            return RunState(UNREADABLE, None, 0.0, str(error))

    def look(self, *, asks: bool = True, also: Collection[str] = ()) -> RunState:
        """Return how the run stands now.

        A storage that does not answer is told in the state's note: what is shown is then what was last seen.

        Args:
            asks: Whether to ask the cluster too; without, a job that is gone is not seen to be.
            also: Files of the run to bring here too, e.g. "log/job.log".

        Raises:
            RunFolderError: The storage holds no such run.
        """
        submission = self.submission
        if submission is None:
            return read_state(self.run)
        note = self._refresh(submission, also)
        state = read_state(self.run, submission, self._ask(submission) if asks else None)
        if not state.is_certain:
            # What the job stored at its end may have come after the first look at the storage.
            note = self._refresh(submission, also)
            state = read_state(self.run, submission, state.ray)
        return replace(state, note=note)

    def is_over(self, state: RunState) -> bool:
        """Return whether a run that is looked at again and again has ended; a doubtful end must last for a while."""
        if not state.is_over:
            self._doubtful_since = None
            return False
        if state.is_certain or state.ray in (None, UNREACHABLE):
            return True
        now = time.monotonic()
        self._doubtful_since = self._doubtful_since or now
        return now - self._doubtful_since >= SETTLE_S

    def stop(self) -> str:
        """Ask the run's job to stop: trials keep a checkpoint at their next step, and the job ends.

        Returns:
            What was done, for the user.

        Raises:
            RunFolderError: It has ended already.
            TransferlibError: Neither the storage nor the cluster could be told.
        """
        state = self.look()
        if state.is_over:
            raise RunFolderError(f"Run {self.run.run_id} is not running: it is {state.state}.")
        submission = self.submission
        if submission is None:
            self.run.stop_flag.touch()
            return f"Asked run {self.run.run_id} to stop; checkpoints are kept."
        return stop_job(self.run, submission, None)

    def ray_log(self) -> str:
        """Return what Ray has of the job's output; empty for a job of this machine.

        Raises:
            TransferlibError: The cluster does not answer, or does not know the job.
        """
        submission = self.submission
        return "" if submission is None else self._client_of(submission).logs(submission.submission_id)

    def _refresh(self, submission: Submission, also: Collection[str]) -> str:
        """Bring the folder up to date; return what kept it from that."""
        try:
            mirror = self._mirror_of(submission)
            if mirror is not None:
                mirror.pull(also)
        except StorageError as error:
            return f"The storage does not answer; what is shown may be old. {error}"
        return ""

    def _ask(self, submission: Submission) -> str:
        """Return Ray's status of a job, or "unknown" or "unreachable"."""
        try:
            state = self._client_of(submission).find(submission.submission_id)
        except TransferlibError:
            return UNREACHABLE
        return UNKNOWN if state is None else state.status

    def _mirror_of(self, submission: Submission) -> ClientMirror | None:
        if submission.storage is None:
            return None
        if self._mirror is None or self._mirror[0] != submission.storage:
            mirror = mirror_of(self.run, submission)
            assert mirror is not None
            self._mirror = (submission.storage, mirror)
        return self._mirror[1]

    def _client_of(self, submission: Submission) -> JobsClient:
        if self._client is None or self._client[0] != submission.address:
            self._client = (submission.address, client_for(submission))
        return self._client[1]


def mirror_of(run: RunFolder, submission: Submission) -> ClientMirror | None:
    """Return what keeps this run folder like the one in the storage; None where they are the same.

    Args:
        run: The folder here.
        submission: Says where the other is.

    Raises:
        StorageError: The storage cannot be used.
    """
    if submission.storage is None:
        return None
    from transferlib.storage.client_mirror import ClientMirror
    from transferlib.storage.locations import open_location

    return ClientMirror(open_location(f"{submission.storage.rstrip('/')}/{run.run_id}"), run)


def client_for(submission: Submission, timeout_s: float = ASK_TIMEOUT_S) -> JobsClient:
    """Return a client of the cluster that a job went to.

    Raises:
        ClusterUnreachableError: It does not answer.
    """
    from transferlib.addresses import ClusterAddress
    from transferlib.on_ray.jobs import JobsClient

    token_path = Path(submission.token_path) if submission.token_path else None
    return JobsClient(ClusterAddress(submission.address, "--address", token_path), timeout_s=timeout_s)


def stop_job(run: RunFolder, submission: Submission, client: JobsClient | None) -> str:
    """Ask a cluster's job to stop: through the storage, and through Ray, which then calls it stopped. One is enough.

    Args:
        run: The folder here.
        submission: Where the job went.
        client: Of the cluster; None: make one.

    Returns:
        What was done, for the user.

    Raises:
        TransferlibError: Neither worked.
    """
    storage_error: Exception | None = None
    try:
        if (mirror := mirror_of(run, submission)) is not None:
            mirror.ask_to_stop()
        else:
            run.stop_flag.touch()
    except (StorageError, OSError) as error:
        storage_error = error
    try:
        (client or client_for(submission)).stop(submission.submission_id)
    except TransferlibError as error:
        if storage_error is not None:
            raise TransferlibError(
                f"Run {run.run_id} could not be asked to stop, neither through its storage ({storage_error}) nor by "
                f"its cluster: {error}"
            ) from None
        return (
            f"Asked run {run.run_id} to stop through its folder; checkpoints are kept. The cluster itself could not be "
            f"told: {error}"
        )
    return f"Asked run {run.run_id} to stop at {submission.address}; checkpoints are kept."
