"""Progress is for looking at: it must not cost more than a look."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from transferlib.data.schedule import Position
from transferlib.records import TrialProgress
from transferlib.training.recorder import TrialRecorder
from transferlib.training.state import EpochSums, TrainingState
from transferlib.training.trial import TrialInputs

MakeInputs = Callable[..., TrialInputs]


def progress_of(inputs: TrialInputs) -> TrialProgress:
    return TrialProgress.from_json(inputs.folder.progress.read_text())


def test_progress_is_written_at_most_twice_a_second(make_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("transferlib.training.recorder.time.monotonic", lambda: now)
    inputs = make_inputs()
    recorder, state = TrialRecorder(inputs), TrainingState()
    recorder.started(state)
    seen = []
    for step in range(1, 9):
        now += 0.2
        state.position = Position(0, step)
        recorder.step_done(state, loss=1.0)
        seen.append(progress_of(inputs).step)
    assert seen == [0, 0, 3, 3, 3, 6, 6, 6]


def test_rates_are_of_the_last_interval(make_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("transferlib.training.recorder.time.monotonic", lambda: now)
    inputs = make_inputs()
    recorder, state = TrialRecorder(inputs), TrainingState()
    recorder.started(state)
    for sums, images_per_s, share in (
        (EpochSums(images=80, seconds=2.0, train_seconds=2.0, data_wait_s=1.0), 40.0, 0.5),
        (EpochSums(images=100, seconds=4.0, train_seconds=3.0, data_wait_s=1.5), 20.0, 0.25),
    ):
        now += 1
        state.sums = sums
        recorder.step_done(state, loss=0.5)
        progress = progress_of(inputs)
        assert (progress.images_per_s, progress.data_wait_share, progress.loss) == (images_per_s, share, 0.5)
    assert progress.num_steps == 6
    assert progress.state == "running"


def test_a_damaged_progress_file_is_no_reason_to_fail(
    make_inputs: MakeInputs, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = make_inputs()
    inputs.folder.progress.write_text("")
    TrialRecorder(inputs).started(TrainingState())
    assert progress_of(inputs).num_restarts == 0
    assert "counted anew" in caplog.text
