"""Ray tasks of ours: how they ask for a worker's share of the machine, and how their errors come back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayTaskError

from transferlib.errors import TransferlibError
from transferlib.planning.plan import Plan

RETRY_ADVICE = re.compile(r"\nFailed to [^\n]* after \d+/\d+ attempts \(total backoff .*", re.DOTALL)
"""What Ray Data writes into the text of every error that a task raises; its settings are not our users'."""


def worker_task(function: Callable[..., Any], plan: Plan, max_retries: int = 0) -> Any:
    """Return a remote function that takes the share of the machine that a one-worker trial takes.

    On a GPU it has its process to itself: one that has opened a GPU keeps it, whatever GPU the next task is given.

    Args:
        function: Importable by workers.
        plan: Of the job.
        max_retries: How often to run it again when its process dies.
    """
    options: dict[str, Any] = {"num_cpus": plan.cpus_per_worker, "max_retries": max_retries}
    if plan.use_gpu:
        options |= {"num_gpus": 1, "max_calls": 1}
    return ray.remote(**options)(function)


def own_error(error: RayTaskError) -> BaseException:
    """Return the package's own error that a task raised, with its own words alone; or the error as it is."""
    cause: Any = error
    while cause is not None:
        if isinstance(cause, TransferlibError) and not isinstance(cause, RayTaskError):
            if cause.args and isinstance(cause.args[0], str):
                cause.args = (RETRY_ADVICE.sub("", cause.args[0]), *cause.args[1:])
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return error
