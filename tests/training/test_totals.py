"""What a trial counts, from its first step to its end: exact, and never falling, however it is interrupted."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.doubles import DyingStream, KilledError, StoppedWorker
from transferlib.records import TrialProgress, TrialTotals
from transferlib.runs import write_atomic
from transferlib.training import recorder
from transferlib.training.trial import TrialInputs, train_trial
from transferlib.training.worker import LocalWorker

pytestmark = pytest.mark.slow

MakeInputs = Callable[..., TrialInputs]
TRAIN_STEPS, VAL_STEPS = 6, 1  # of 41 and 13 images, 8 and 16 at a time
EPOCH = TRAIN_STEPS + VAL_STEPS


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[TrialProgress]:
    """Return all that is shown, which is now every step."""
    seen: list[TrialProgress] = []

    def keep(path: Path, data: str, **options: Any) -> None:
        write_atomic(path, data, **options)
        if path.name == "progress.json":
            seen.append(TrialProgress.from_json(data))

    monkeypatch.setattr(recorder, "_PROGRESS_EVERY_S", 0.0)
    monkeypatch.setattr(recorder, "_PROGRESS_AT_LEAST_EVERY_S", 0.0)
    monkeypatch.setattr(recorder, "write_atomic", keep)
    return seen


def kill_after(inputs: TrialInputs, num_batches: int) -> None:
    dying = dataclasses.replace(inputs, stream=DyingStream(inputs.stream, num_batches))
    with pytest.raises(KilledError):
        list(train_trial(dying, LocalWorker()))


def last_totals(shown: list[TrialProgress]) -> TrialTotals:
    totals = shown[-1].totals
    assert totals is not None
    return totals


def assert_never_falling(shown: list[TrialProgress]) -> None:
    flat = [_flat(progress.totals) for progress in shown if progress.totals is not None]
    assert len(flat) == len(shown)
    for before, after in itertools.pairwise(flat):
        assert all(later >= earlier for earlier, later in zip(before, after, strict=True))


def _flat(totals: TrialTotals) -> list[float]:
    plain = dataclasses.asdict(totals)
    return [*plain.pop("train").values(), *plain.pop("val").values(), *plain.values()]


def test_an_undisturbed_trial_counts_every_image_and_step_once(
    make_inputs: MakeInputs, shown: list[TrialProgress]
) -> None:
    records = list(train_trial(make_inputs(epochs=2), LocalWorker()))
    totals = last_totals(shown)
    assert (totals.train.images, totals.train.steps) == (82, 12)
    assert (totals.val.images, totals.val.steps) == (26, 2)
    assert totals.steps_redone == 0
    # The counters are made of the same seconds as the rows of metrics.csv.
    assert totals.train.seconds == pytest.approx(sum(record.train_seconds for record in records))
    waited = totals.train.data_wait_s + totals.val.data_wait_s
    assert waited == pytest.approx(sum(record.data_wait_s for record in records))
    assert totals.checkpoint_s == pytest.approx(sum(record.checkpoint_s for record in records))
    spent = totals.train.seconds + totals.val.seconds + totals.checkpoint_s
    assert spent < sum(record.seconds for record in records)
    assert 0 < totals.val.data_wait_s < totals.val.seconds
    # Weights, momentum and the best epoch's logits, twice; about 150,000 float32 each.
    assert 2 * 1_100_000 < totals.checkpoint_bytes < 2 * 1_400_000
    assert_never_falling(shown)


def test_validation_is_shown_while_it_runs(make_inputs: MakeInputs, shown: list[TrialProgress]) -> None:
    list(train_trial(make_inputs(epochs=1), LocalWorker()))
    in_validation = [progress for progress in shown if progress.totals and progress.totals.val.steps == 1]
    assert in_validation[0].epoch == 0
    assert in_validation[0].val_loss is None
    assert in_validation[-1].epoch == 1
    assert in_validation[-1].val_loss is not None


def test_a_stop_loses_nothing_and_redoes_nothing(make_inputs: MakeInputs, shown: list[TrialProgress]) -> None:
    inputs = make_inputs(epochs=2)
    list(train_trial(inputs, StoppedWorker(at=EPOCH + 3)))
    list(train_trial(inputs, LocalWorker()))
    totals = last_totals(shown)
    assert (totals.train.images, totals.train.steps, totals.steps_redone) == (82, 12, 0)
    assert_never_falling(shown)


def test_steps_after_the_last_checkpoint_of_a_killed_trial_are_counted_again_and_said_so(
    make_inputs: MakeInputs, shown: list[TrialProgress]
) -> None:
    inputs = make_inputs(epochs=2)
    kill_after(inputs, EPOCH + 4)
    kill_after(inputs, 2)  # goes on from the second epoch's begin
    list(train_trial(inputs, LocalWorker()))
    totals = last_totals(shown)
    assert totals.steps_redone == 4 + 2
    assert totals.train.steps - totals.steps_redone == 2 * TRAIN_STEPS
    # 41 images in six steps are 7, 7, 7, 7, 7, 6 in some order.
    assert 82 + 6 * 6 <= totals.train.images <= 82 + 6 * 7
    assert totals.val.images == 26
    assert shown[-1].num_restarts == 2
    assert_never_falling(shown)


def test_a_checkpoint_that_is_damaged_makes_more_steps_redone(
    make_inputs: MakeInputs, shown: list[TrialProgress]
) -> None:
    inputs = make_inputs(epochs=2)
    list(train_trial(inputs, StoppedWorker(at=EPOCH + 3)))
    newest = max(inputs.folder.checkpoints.iterdir())
    os.truncate(newest / "optimizer.safetensors", 100)
    list(train_trial(inputs, LocalWorker()))
    totals = last_totals(shown)
    assert totals.train.steps - totals.steps_redone == 2 * TRAIN_STEPS
    assert totals.steps_redone == int(newest.name[-6:])
    assert_never_falling(shown)


def test_without_the_last_progress_counting_goes_on_from_the_checkpoint(
    make_inputs: MakeInputs, shown: list[TrialProgress]
) -> None:
    inputs = make_inputs(epochs=2)
    kill_after(inputs, EPOCH + 4)
    inputs.folder.progress.unlink()
    list(train_trial(inputs, LocalWorker()))
    totals = last_totals(shown)
    assert (totals.train.images, totals.train.steps, totals.steps_redone) == (82, 12, 0)
