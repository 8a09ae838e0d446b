"""The job's own watch over its trials: each epoch once, and no file read that has not changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.telemetry.run_folders import begin_run
from transferlib.on_ray.watch import Watch
from transferlib.records import EpochRecord, TrialSpec
from transferlib.runs import RunFolder, write_atomic
from transferlib.training.recorder import metrics_csv


def _epochs(run: RunFolder, trial: TrialSpec, number: int) -> None:
    records = [EpochRecord(i, 0.5, 0.4, 0.75, 0.1, 41, 2.0, 1.5, 0.1, 0.0, 1 << 20, True) for i in range(number)]
    run.trial(trial.trial_id).path.mkdir(exist_ok=True)
    write_atomic(run.trial(trial.trial_id).metrics, metrics_csv(records))


def _written(run: RunFolder) -> list[tuple[str, int]]:
    return [(row["trial_id"], row["epoch"]) for row in map(json.loads, run.metrics.read_text().splitlines())]


def test_epochs_are_collected_once_and_only_from_files_that_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = begin_run(tmp_path)
    first, second = plan.trials[:2]
    _epochs(run, first, 2)
    _epochs(run, second, 1)
    watch = Watch(run, plan.trials)
    watch.collect()
    read: list[str] = []
    read_text = Path.read_text

    def counted(path: Path, *args: object, **options: object) -> str:
        read.append(path.parent.name)
        return read_text(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", counted)
    watch.collect()
    assert read == []
    _epochs(run, second, 2)
    watch.collect()
    assert read == [second.trial_id]
    monkeypatch.undo()
    names = [first.trial_id, first.trial_id, second.trial_id, second.trial_id]
    assert _written(run) == list(zip(names, [0, 1, 0, 1], strict=True))


def test_rows_that_could_not_be_written_come_with_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = begin_run(tmp_path)
    _epochs(run, plan.trials[0], 1)
    watch = Watch(run, plan.trials)

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_metrics", no_room)
        with pytest.raises(OSError, match="No space"):
            watch.collect()
    watch.collect()
    assert _written(run) == [(plan.trials[0].trial_id, 0)]


@pytest.mark.parametrize("text", ["epoch,train_loss\n0,1\n", "epoch\nx\n", "\x00", "epoch,lr\n0\n"])
def test_damaged_tables_end_no_job(tmp_path: Path, text: str) -> None:
    run, plan = begin_run(tmp_path)
    first, second = plan.trials[:2]
    _epochs(run, first, 1)
    _epochs(run, second, 1)
    run.trial(first.trial_id).metrics.write_text(text.replace("0,1", "0,{"))
    run.metrics.write_text('none of ours\n[]\n{"trial_id": 3}\n')
    Watch(run, plan.trials).collect()
    assert json.loads(run.metrics.read_text().splitlines()[-1])["trial_id"] == second.trial_id
