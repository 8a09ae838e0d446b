"""Finished trials whose files are damaged or gone are trained again; what follows from the others is made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.synthetic_run import Story, write_run
from transferlib.errors import RunFolderError
from transferlib.on_ray.experiment import _Job
from transferlib.on_ray.mirroring import OnDisk
from transferlib.runs import RunFolder, file_sha256

STORY = Story(("last_layers", "full"), (0,), 2, classes=("a", "b"), per_class=(2, 4, 5), epochs=1)
TRIAL = "resnet18-full-s0-c0"
"""One that is chosen."""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Return a run of which each trial has a model, and says so."""
    run = write_run(tmp_path, STORY)
    for path in run.path.glob("trials/*"):
        folder = run.trial(path.name)
        folder.best.write_bytes(f"weights of {path.name}".encode())
        files = {each.name: file_sha256(each) for each in (folder.best, folder.predictions("val"))}
        folder.result.write_text(json.dumps({**json.loads(folder.result.read_text()), "files": files}))
    return run


def put_back(run: RunFolder) -> set[str]:
    """Return the trials that a job of this run trains."""
    job = _Job(run, OnDisk(), is_on_cluster=False)
    job._put_back_damaged()
    return {trial.trial_id for trial in job.plan.trials if not job._is_finished(trial)}


def test_a_whole_run_trains_nothing_again(run: RunFolder) -> None:
    assert put_back(run) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["best.safetensors", "predictions-val.parquet", "result.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]"])
def test_a_trial_with_a_damaged_or_missing_file_is_trained_again(
    name: str, content: bytes | None, run: RunFolder
) -> None:
    assert run.trial(TRIAL).predictions("test").exists()
    path = run.trial(TRIAL).path / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert put_back(run) == {TRIAL}
    assert not run.trial(TRIAL).predictions("test").exists()


def test_a_result_that_cannot_be_read_now_is_not_thrown_away(run: RunFolder) -> None:
    run.trial(TRIAL).result.unlink()
    run.trial(TRIAL).result.mkdir()
    with pytest.raises(RunFolderError, match="a folder is in its place"):
        put_back(run)


def test_models_that_were_dropped_on_purpose_are_not_missed(run: RunFolder) -> None:
    chosen = {trial["trial_id"] for trial in json.loads(run.choice.read_text())["chosen"]}
    for path in run.path.glob("trials/*"):
        if path.name not in chosen:
            run.trial(path.name).best.unlink()
    assert put_back(run) == set()


def test_damaged_test_predictions_are_made_again(run: RunFolder) -> None:
    path = run.trial(TRIAL).predictions("test")
    path.write_bytes(b"PAR1 and no more")
    job = _Job(run, OnDisk(), is_on_cluster=False)
    job._drop_damaged_tables(job.plan.trials)
    assert not path.exists()
    assert len(list(run.path.glob("trials/*/predictions-test.parquet"))) == 1
