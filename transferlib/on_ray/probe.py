"""Ask a cluster what it has and what its nodes see, before anything is sent: a job of a few seconds, and its answer."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import transferlib
from transferlib.errors import TransferlibError
from transferlib.jobs_folder import job_script
from transferlib.on_ray.jobs import JobsClient, JobState
from transferlib.on_ray.session import RAY_ENVIRONMENT
from transferlib.planning.nodes import ClusterFacts

REQUEST_VARIABLE = "TRANSFERLIB_PROBE"
ANSWER = "TRANSFERLIB_PROBE "
"""How the line with the answer begins, among all that a job may print."""
POLL_S = 0.2
PREFIX = "transferlib-probe-"
PROBE_ID = re.compile(rf"{PREFIX}[0-9a-f]{{12}}")
VERB = "probe"
SETTLED_S = 60.0
"""Ray 2.60 looks at a job once more after its end, and one that was deleted by then comes back as failed."""


@dataclass(frozen=True)
class ProbeRequest:
    """Say what each node is asked for."""

    data: str = ""
    """Images: a path or URI; empty: not asked."""
    storage: str = ""
    """Where run folders lie; empty: not asked."""
    nonce_file: str = ""
    """Name of a file that the sender has left in the storage."""
    weights: str = ""
    """Path or URI of source weights; empty: not asked, or a name that is not a file's."""
    cache_dir: str = ""
    """Of decoded images; empty: the usual place on each node."""
    is_thorough: bool = False
    """Whether to import torch on each node, which takes seconds."""


def probe_cluster(client: JobsClient, request: ProbeRequest, timeout_s: float = 60.0) -> ClusterFacts:
    """Return what a cluster has and sees.

    Args:
        client: Of the cluster.
        request: What to look for.
        timeout_s: Limit for the whole.

    Raises:
        ClusterUnreachableError: The cluster went away.
        TransferlibError: The probe did not run to its end there, with what it said.
    """
    job = f"{PREFIX}{secrets.token_hex(6)}"
    _sweep(client)
    package = Path(transferlib.__file__).parent
    with tempfile.TemporaryDirectory(prefix="tl-probe-") as folder:
        shutil.copytree(package, Path(folder) / "transferlib", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(job_script("probe.py"), folder)
        client.submit(
            job,
            "exec python probe.py",
            working_dir=Path(folder),
            env_vars={**RAY_ENVIRONMENT, REQUEST_VARIABLE: json.dumps(asdict(request))},
            metadata={"verb": VERB},
        )
    try:
        state = _wait(client, job, timeout_s)
        text = client.logs(job)
    finally:
        client.stop(job)
    for line in text.splitlines():
        if line.startswith(ANSWER):
            return replace(ClusterFacts.from_json(line.removeprefix(ANSWER)), address=client.address.url)
    raise TransferlibError(
        f"The cluster at {client.address.url} was asked what it has, and that failed there: {_why(state, text)}"
    )


def _wait(client: JobsClient, job: str, timeout_s: float) -> JobState | None:
    deadline = time.monotonic() + timeout_s
    while True:
        state = client.find(job)
        if state is None or state.has_ended or time.monotonic() > deadline:
            return state
        time.sleep(POLL_S)


def _sweep(client: JobsClient) -> None:
    """Take earlier probes off the head's list of jobs; no job that is not certainly ours."""
    for job in client.jobs():
        is_ours = job.metadata.get("verb") == VERB and PROBE_ID.fullmatch(job.submission_id)
        is_settled = job.ended_at is not None and job.ended_at < time.time() - SETTLED_S
        if is_ours and job.has_ended and is_settled:
            with suppress(TransferlibError):  # someone else's sweep was quicker
                client.delete(job.submission_id)


def _why(state: JobState | None, log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if state is None or not state.has_ended:
        return "it has not ended in time; its head may be short of CPUs or memory, see its dashboard."
    if any("No module named 'ray'" in line or "python: not found" in line for line in lines):
        return "`python` on its head is not the one with Ray. Put that Python's folder first on PATH, then `ray start`."
    return f"{state.message.splitlines()[-1] if state.message else state.status}. {lines[-1] if lines else ''}".strip()
