"""Progress is for looking at: it must not cost more than a look."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from transferlib.data.schedule import Position
from transferlib.records import TrialKey, TrialProgress, TrialResult, TrialState, TrialTotals
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


@pytest.mark.parametrize(
    ("write_s", "interval_s"),
    [(0.0, 0.5), (0.001, 0.5), (0.0025, 1.0), (0.5, 2.0)],
    ids=["at once", "a millisecond", "slow", "never rarer than every two seconds"],
)
def test_where_writing_is_slow_progress_is_written_less_often(
    make_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch, write_s: float, interval_s: float
) -> None:
    now = 50.0

    def write(path: Path, data: str, **options: bool) -> None:
        nonlocal now
        if path.name == "progress.json":
            now += write_s
            written_at.append(now)

    written_at: list[float] = []
    monkeypatch.setattr("transferlib.training.recorder.time.monotonic", lambda: now)
    monkeypatch.setattr("transferlib.training.recorder.write_atomic", write)
    recorder, state = TrialRecorder(make_inputs()), TrainingState()
    recorder.started(state)
    for _ in range(1000):
        now += 0.01
        recorder.step_done(state, loss=1.0)
    gaps = [after - before for before, after in itertools.pairwise(written_at[1:])]
    assert gaps == pytest.approx([interval_s + write_s] * len(gaps), abs=0.011)


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


def test_progress_of_an_earlier_version_is_read_and_its_start_counts(make_inputs: MakeInputs) -> None:
    inputs = make_inputs()
    TrialRecorder(inputs).started(TrainingState())
    plain = json.loads(inputs.folder.progress.read_text())
    for name in ("totals", "stage_lrs", "val_loss", "memory_bytes", "gpu_memory_bytes", "gpu_utilisation"):
        del plain[name]
    inputs.folder.progress.write_text(json.dumps(plain))
    assert progress_of(inputs).totals is None
    TrialRecorder(inputs).started(TrainingState())
    assert progress_of(inputs).num_restarts == 1
    assert progress_of(inputs).totals == TrialTotals()


def test_rates_are_shown_by_stage_at_the_step_before_the_position(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="last_layers", epochs=2, warmup_epochs=0)
    recorder, state = TrialRecorder(inputs), TrainingState()
    recorder.started(state)
    at_start = progress_of(inputs).stage_lrs
    peak = inputs.trial.lr
    assert [at_start[stage] for stage in ("stem", "layer1", "layer2", "layer3")] == [0.0] * 4
    assert at_start["head"] == peak
    assert 0.0 < at_start["layer4"] <= peak
    for position, step in ((Position(0, 3), 2), (Position(1, 0), 5), (Position(1, 6), 11)):
        state.position = position
        recorder.ended(state, ended("stopped"))
        rates = progress_of(inputs).stage_lrs
        assert rates["head"] == pytest.approx(peak * 0.5 * (1 + math.cos(math.pi * step / 12)))
        assert rates["layer4"] / rates["head"] == pytest.approx(at_start["layer4"] / peak)


def test_the_last_loss_stays_when_the_trial_ends(make_inputs: MakeInputs) -> None:
    inputs = make_inputs()
    recorder, state = TrialRecorder(inputs), TrainingState()
    recorder.started(state)
    recorder.step_done(state, loss=0.25)
    recorder.ended(state, ended("failed"))
    assert progress_of(inputs).loss == 0.25
    going_on = TrainingState(sums=EpochSums(loss=6.0, images=8))
    TrialRecorder(inputs).started(going_on)
    assert progress_of(inputs).loss == 0.75


def ended(state: TrialState) -> TrialResult:
    return TrialResult(TrialKey.parse("resnet18-full-s0-c0"), 0.01, state)
