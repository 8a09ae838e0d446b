"""Jobs on a Ray cluster: send, find, stop. Every call has a time limit, and a repeated one does no harm."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from requests import Response

from transferlib.addresses import DEFAULT_PORT, ClusterAddress
from transferlib.errors import ClusterUnreachableError, TransferlibError, UsageError
from transferlib.on_ray.head_http import ConnectionLostError, HeadHttp

JobStatus = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]
ENDED: frozenset[str] = frozenset({"STOPPED", "SUCCEEDED", "FAILED"})

EXISTS = "already exists"
UPLOAD_TIMEOUT_S = 120.0
"""Of one package, at most 100 MiB."""
SUBMIT_TIMEOUT_S = 40.0
"""The head waits up to 30 s for its own agent."""
STOP_TIMEOUT_S = 40.0
"""As with SUBMIT_TIMEOUT_S."""


@dataclass(frozen=True)
class JobState:
    """Say what a head knows of a job."""

    submission_id: str
    status: JobStatus
    message: str = ""
    """Ray's own words."""
    exit_code: int | None = None
    """None: it has not ended, or not by itself (stopped, or lost with its node)."""
    started_at: float | None = None
    """Unix time."""
    ended_at: float | None = None
    """Unix time."""
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Return whether it will not run any more."""
        return self.status in ENDED


class JobsClient:
    """Speak to a cluster's Jobs API.

    Args:
        address: Of its dashboard.
        timeout_s: Limit of a call; uploading, submitting and stopping have longer ones.

    Raises:
        ClusterUnreachableError: It does not answer, does not take our token, or is no Ray head.
    """

    def __init__(self, address: ClusterAddress, *, timeout_s: float = 10.0) -> None:
        self.address = address
        self._http = HeadHttp(address, timeout_s=timeout_s)
        self.ray_version = self._ask_version()

    def asks_for_token(self) -> bool:
        """Return whether the head turns away who has no token."""
        return self._http.turns_strangers_away("/api/version")

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        working_dir: Path,
        py_modules: Sequence[Path] = (),
        env_vars: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> bool:
        """Send a job; what it needs is uploaded once, by content.

        Args:
            submission_id: Of our choice; one job has it, however often this is called.
            entrypoint: A shell command, run in the working directory on the head node.
            working_dir: Folder that travels.
            py_modules: Packages that travel.
            env_vars: Of the job and its workers. They come back in clear from the API: no secrets.
            metadata: Shown beside the job.

        Returns:
            False: a job of this id was there already, and nothing was started.

        Raises:
            ClusterUnreachableError: The connection was lost, twice.
            UsageError: The head refuses the job.
        """
        if self.find(submission_id) is not None:
            return False
        try:
            return self._send(submission_id, entrypoint, working_dir, py_modules, env_vars, metadata)
        except ConnectionLostError:
            if self.find(submission_id) is None:
                # Had the first arrived after all, the second is told so, and nothing runs twice.
                self._send(submission_id, entrypoint, working_dir, py_modules, env_vars, metadata)
            return True

    def _send(
        self,
        submission_id: str,
        entrypoint: str,
        working_dir: Path,
        py_modules: Sequence[Path],
        env_vars: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> bool:
        runtime_env: dict[str, Any] = {
            "working_dir": self._upload(submission_id, pack(working_dir)),
            "env_vars": dict(env_vars),
        }
        if py_modules:
            runtime_env["py_modules"] = [self._upload(submission_id, pack(path, path.name)) for path in py_modules]
        job = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "runtime_env": runtime_env,
            "metadata": dict(metadata),
        }
        answer = self._http.ask("POST", "/api/jobs/", json_data=job, timeout_s=SUBMIT_TIMEOUT_S)
        if answer.status_code != 200 and EXISTS in answer.text:
            return False
        self._take(submission_id, answer)
        return True

    def _upload(self, submission_id: str, package: bytes) -> str:
        """Upload a package that the head does not have yet; return its URI."""
        name = f"_ray_pkg_{hashlib.sha256(package).hexdigest()}.zip"
        path = f"/api/packages/gcs/{name}"
        answer = self._http.ask("GET", path)
        if answer.status_code == 404:
            answer = self._http.ask("PUT", path, data=package, timeout_s=UPLOAD_TIMEOUT_S)
        self._take(submission_id, answer)
        return f"gcs://{name}"

    def _take(self, submission_id: str, answer: Response) -> None:
        """Refuse what the head refuses; its last line says most where it sends a traceback.

        Raises:
            ConnectionLostError: The answer is not the head's.
            UsageError: The head refuses.
        """
        if answer.status_code in (502, 503, 504):  # of a proxy: whether the head took it is not known
            raise ConnectionLostError(
                f"The cluster at {self.address} cannot be reached: what stands before it answers {answer.status_code}. "
                "Is the head up?"
            )
        if answer.status_code != 200:
            why = _last_line(f"Request failed with status code {answer.status_code}: {answer.text}")
            raise UsageError(f"The cluster at {self.address} refuses the job {submission_id}: {why}")

    def find(self, submission_id: str) -> JobState | None:
        """Return what the head knows of a job; None: nothing (it was started anew since, or never had it)."""
        answer = self._http.ask("GET", _path(submission_id))
        return None if answer.status_code == 404 else _state(self._value(answer))

    def jobs(self) -> list[JobState]:
        """Return all jobs that were sent to this head, oldest first."""
        found = self._value(self._http.ask("GET", "/api/jobs/"))
        states = [_state(job) for job in found if job.get("type") == "SUBMISSION"]
        return sorted(states, key=lambda state: (state.started_at or 0.0, state.submission_id))

    def stop(self, submission_id: str) -> bool:
        """Ask a job to stop: SIGTERM, then SIGKILL after RAY_JOB_STOP_WAIT_TIME_S of its own environment.

        Returns:
            False: it was not running, or the head does not know it.
        """
        answer = self._http.ask("POST", _path(submission_id, "/stop"), timeout_s=STOP_TIMEOUT_S)
        return answer.status_code != 404 and bool(self._value(answer)["stopped"])

    def delete(self, submission_id: str) -> None:
        """Take a job that has ended off the head's list; its log stays on the head's disk."""
        answer = self._http.ask("DELETE", _path(submission_id), timeout_s=STOP_TIMEOUT_S)
        if answer.status_code != 404:
            self._value(answer)

    def logs(self, submission_id: str) -> str:
        """Return all that a job has printed so far.

        Raises:
            UsageError: The head does not know the job.
        """
        answer = self._http.ask("GET", _path(submission_id, "/logs"))
        if answer.status_code == 404:
            raise UsageError(self._unknown(submission_id))
        return str(self._value(answer)["logs"])

    def _ask_version(self) -> str:
        answer = self._http.ask("GET", "/api/version")
        try:
            return str(answer.json()["ray_version"])
        except (ValueError, KeyError, TypeError):
            raise ClusterUnreachableError(
                f"What answers at {self.address} is no Ray head ({answer.status_code} to /api/version). Give the "
                f"address of the dashboard (port {DEFAULT_PORT} unless changed)."
            ) from None

    def _value(self, answer: Response) -> Any:
        if answer.status_code == 200:
            try:
                return answer.json()
            except ValueError:
                raise ClusterUnreachableError(
                    f"What answers at {self.address} is no Ray head, or a proxy before one that does not reach it: "
                    f"{answer.text[:80]!r}."
                ) from None
        # 5xx: the head is starting, ending or overloaded, or a proxy does not reach it. Asking again may help.
        kind = ClusterUnreachableError if answer.status_code >= 500 else TransferlibError
        raise kind(
            f"The cluster at {self.address} answers {answer.status_code}: {_last_line(answer.text)}. "
            "Its dashboard's logs (<Ray's temp dir>/session_latest/logs/dashboard*.log) say more."
        )

    def _unknown(self, submission_id: str) -> str:
        return (
            f"The cluster at {self.address} does not know the job {submission_id}: its head was started anew since, "
            "and forgets all jobs then. The run folder keeps what the job printed (log/job.log)."
        )


def pack(folder: Path, top: str = "") -> bytes:
    """Return a folder's files as a zip: the same bytes for the same names, modes and contents.

    Args:
        folder: What is packed, but for what Python compiled there.
        top: Folder that they lie in inside the zip; empty: none.
    """
    packed = io.BytesIO()
    with ZipFile(packed, "w") as archive:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and "__pycache__" not in inside.parts:
                entry = ZipInfo((top / inside).as_posix())  # of no date
                entry.external_attr = path.stat().st_mode << 16
                archive.writestr(entry, path.read_bytes(), ZIP_DEFLATED)
    return packed.getvalue()


def _path(submission_id: str, rest: str = "") -> str:
    return f"/api/jobs/{quote(submission_id, safe='')}{rest}"


def _state(job: Mapping[str, Any]) -> JobState:
    return JobState(
        submission_id=str(job["submission_id"] or job["job_id"]),
        status=cast(JobStatus, str(job["status"])),
        message=str(job.get("message") or ""),
        exit_code=job.get("driver_exit_code"),
        started_at=_seconds(job.get("start_time")),
        ended_at=_seconds(job.get("end_time")),
        metadata={str(key): str(value) for key, value in (job.get("metadata") or {}).items()},
    )


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]
    return lines[-1].rstrip(".")[:500] if lines else "nothing"
