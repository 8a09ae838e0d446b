"""Send folders to a cluster the way Ray does: packed, named by their content, uploaded once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.dashboard.modules.dashboard_sdk import SubmissionClient
from ray.job_submission import JobSubmissionClient

from transferlib.on_ray.head_http import Answer, HeadHttp

UPLOAD_TIMEOUT_S = 120.0
"""Of one package, at most 100 MiB."""
SUBMIT_TIMEOUT_S = 40.0
"""The head waits up to 30 s for its own agent."""

for _name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they announce each upload on stderr


class PackingClient(JobSubmissionClient):
    """Be Ray's own client, over our HTTP."""

    def __init__(self, http: HeadHttp) -> None:
        # Past its own __init__, which asks the cluster without a time limit and prefers RAY_ADDRESS to what it is told.
        SubmissionClient.__init__(self, http.address.url, headers=http.headers or {"Authorization": ""})
        self._http = http

    def _do_request(  # type: ignore[override]
        self, method: str, endpoint: str, *, data: bytes | None = None, json_data: Any = None, **_: Any
    ) -> Answer:
        limit = {"PUT": UPLOAD_TIMEOUT_S, "POST": SUBMIT_TIMEOUT_S}.get(method)
        return self._http.ask(method, endpoint, data=data, json_data=json_data, timeout_s=limit)


def send_job(
    http: HeadHttp,
    submission_id: str,
    entrypoint: str,
    *,
    working_dir: Path,
    py_modules: Sequence[Path],
    env_vars: Mapping[str, str],
    metadata: Mapping[str, str],
) -> None:
    """Upload what a job needs and submit it.

    Raises:
        ClusterUnreachableError: As `HeadHttp.ask`.
        RuntimeError: Of Ray's client: the head refused, with its words.
    """
    runtime_env: dict[str, Any] = {"working_dir": str(working_dir), "env_vars": dict(env_vars)}
    if py_modules:
        runtime_env["py_modules"] = [str(path) for path in py_modules]
    PackingClient(http).submit_job(
        entrypoint=entrypoint, submission_id=submission_id, runtime_env=runtime_env, metadata=dict(metadata)
    )
