"""What a run folder keeps of a job that was sent to a cluster: `job.json`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from transferlib.errors import RunFolderError
from transferlib.records import JsonRecord
from transferlib.runs import RunFolder, reading, write_atomic

SCHEMA = 1


@dataclass(frozen=True)
class Submission(JsonRecord):
    """Say where a run's job went, so that every later command finds it, whatever the cluster has forgotten."""

    run: str
    """Run id."""
    address: str
    """Of the cluster's Jobs API, e.g. "http://head:8265"; holds no secret. Empty: the run went on on this machine."""
    storage: str | None
    """Where run folders lie for the cluster, a path or a URI; None: this very folder, on a disk that all nodes see."""
    attempt: int
    """1, and one more for each time the run was resumed."""
    submitted_at: float
    """Unix time."""
    token_path: str | None = None
    """File with the cluster's token, where it is not where Ray looks for it; never the token itself."""
    schema: int = SCHEMA

    @property
    def submission_id(self) -> str:
        """Return Ray's id of the job: the run's own, so that a repeated submit finds the job that the first started."""
        return self.run if self.attempt == 1 else f"{self.run}-r{self.attempt}"

    def save(self, run: RunFolder) -> None:
        """Write it into the run folder."""
        write_atomic(run.job, self.to_json() + "\n")

    @classmethod
    def load(cls, run: RunFolder) -> Submission | None:
        """Read where a run's job is, from its folder; None: on this machine.

        Raises:
            RunFolderError: It is damaged, or of another schema.
        """
        newest = cls.newest(run)
        return newest if newest is not None and newest.address else None

    @classmethod
    def newest(cls, run: RunFolder) -> Submission | None:
        """Read what the newest start of a run left, wherever it went; None: it never left this machine.

        Raises:
            RunFolderError: It is damaged, or of another schema.
        """
        try:
            with reading(run.job):
                submission = cls.from_json(run.job.read_text())
        except FileNotFoundError:
            return None
        if submission.schema != SCHEMA:
            raise RunFolderError(f"{run.job} has schema {submission.schema}; this version reads {SCHEMA}.")
        return submission


def came_home(run: RunFolder) -> None:
    """Note that a run goes on on this machine; its attempts are counted on, since Ray knows its jobs by them.

    Raises:
        RunFolderError: What was noted before is damaged.
    """
    before = Submission.newest(run)
    if before is not None and before.address:
        replace(before, address="", token_path=None, submitted_at=time.time()).save(run)
