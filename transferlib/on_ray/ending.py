"""Which errors end a trial for good, and which are worth another start."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transferlib.errors import CacheWriteError, CheckpointError, StorageUnreachableError, TransferlibError
from transferlib.records import TrialResult, TrialSpec
from transferlib.runs import RunFolder, is_disk_full, write_atomic

logger = logging.getLogger(__name__)


@contextmanager
def ended_by_its_own_error(run: RunFolder, trial: TrialSpec) -> Iterator[None]:
    """Record a trial as failed when it raises what it would raise again; let everything else through.

    Data, weights and a GPU that is too small are the same at the next start, so they become the trial's result. A dead
    process, a full disk (`CheckpointError`, `CacheWriteError`), a store that does not answer or an unknown error may be
    gone by then: whoever runs the trial starts it again, and a later `--resume` does too.
    """
    try:
        yield
    except Exception as error:
        reason = final_reason(error)
        if reason is None:
            raise
        logger.exception("The trial failed.")
        write_atomic(
            run.trial(trial.trial_id).result, failed_result(trial, reason, type(error).__name__).to_json() + "\n"
        )


def final_reason(error: Exception) -> str | None:
    """Return why a trial failed for good; None where another start may do better."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, by name: this module is read where torch is not loaded
        return f"The GPU's memory does not hold it; use a smaller --global-batch-size or --image-size. {error}"
    may_pass = isinstance(error, CheckpointError | StorageUnreachableError | CacheWriteError) or is_disk_full(error)
    may_pass = may_pass or isinstance(error.__cause__, OSError)  # a disk that does not answer
    if isinstance(error, TransferlibError) and not may_pass:
        return str(error)
    return None


def failed_result(trial: TrialSpec, reason: str, error: str) -> TrialResult:
    """Return the result of a trial that failed before it had anything to show.

    Args:
        trial: Which.
        reason: For people.
        error: Name of the error's class.
    """
    return TrialResult(
        key=trial.key,
        lr=trial.lr,
        state="failed",
        reason=reason,
        error=error,
    )
