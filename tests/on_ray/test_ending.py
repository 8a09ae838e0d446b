"""Only what another start cannot mend ends a trial for good."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from transferlib.data.cache import _as_data_error
from transferlib.errors import (
    CacheWriteError,
    CheckpointError,
    DataError,
    PlanError,
    StorageUnreachableError,
    WeightsError,
)
from transferlib.on_ray.ending import ended_by_its_own_error
from transferlib.records import TrialKey, TrialSpec
from transferlib.runs import RunFolder

TRIAL = TrialSpec(TrialKey("resnet18", "full", 0, 0, 0), 0.1)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path, "compare")
    run.trial(TRIAL.trial_id).path.mkdir()
    return run


@pytest.mark.parametrize("error", [DataError("gone"), WeightsError("other"), PlanError("too small")])
def test_what_is_the_same_at_the_next_start_is_the_trials_result(run: RunFolder, error: Exception) -> None:
    with ended_by_its_own_error(run, TRIAL):
        raise error
    result = run.trial(TRIAL.trial_id).read_result()
    assert result is not None
    assert (result.state, result.reason) == ("failed", str(error))


@pytest.mark.parametrize(
    "error",
    [
        CacheWriteError("full"),
        CheckpointError("full"),
        StorageUnreachableError("away"),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("?"),
    ],
)
def test_what_may_be_gone_by_then_is_tried_again(run: RunFolder, error: Exception) -> None:
    """A cache disk that was full for a moment ended every trial, and no resume tried them again."""
    with pytest.raises(type(error)), ended_by_its_own_error(run, TRIAL):
        raise error
    assert run.trial(TRIAL.trial_id).read_result() is None


def test_a_full_cache_disk_is_such_an_error(tmp_path: Path) -> None:
    with pytest.raises(CacheWriteError, match="no space left on device"), _as_data_error(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
