from __future__ import annotations

import json

import pytest

from transferlib.data.schedule import Position
from transferlib.records import EpochRecord
from transferlib.training.state import BestEpoch, EpochSums, TrainingState

RECORD = EpochRecord(0, 1 / 3, 0.5, 0.75, 0.01, 41, 2.0, 1.5, 0.25, 0.125, 1000, True)


@pytest.mark.parametrize(
    ("val_accuracy", "val_loss", "expected"),
    [(0.8, 9.0, True), (0.7, 0.1, False), (0.75, 0.4, True), (0.75, 0.5, False), (0.75, 0.6, False)],
)
def test_better_is_more_accurate_then_lower_in_loss(val_accuracy: float, val_loss: float, expected: bool) -> None:
    best = BestEpoch(0, 0.75, 0.5, Position(1, 0))
    assert best.is_worse_than(val_accuracy, val_loss) is expected


def test_a_state_survives_json_exactly() -> None:
    state = TrainingState(
        position=Position(1, 3),
        sums=EpochSums(loss=0.1 + 0.2, images=24, seconds=1.0),
        records=[RECORD],
        best=BestEpoch(0, 0.75, 0.5, Position(1, 0)),
        peak_memory_bytes=1000,
        first_step_s=0.7,
    )
    assert TrainingState.from_plain(json.loads(json.dumps(state.to_plain()))) == state
    assert TrainingState.from_plain(json.loads(json.dumps(TrainingState().to_plain()))) == TrainingState()


def test_a_checkpoint_is_charged_to_the_epoch_it_belongs_to() -> None:
    finished = TrainingState(position=Position(1, 0), records=[RECORD])
    finished.charge_checkpoint(1.0)
    assert (finished.records[0].seconds, finished.records[0].checkpoint_s) == (3.0, 1.125)
    under_way = TrainingState(position=Position(1, 2), records=[RECORD])
    under_way.charge_checkpoint(1.0)
    assert under_way.records == [RECORD]
    assert (under_way.sums.seconds, under_way.sums.checkpoint_s) == (1.0, 1.0)


def test_totals_are_over_all_epochs() -> None:
    state = TrainingState(records=[RECORD], sums=EpochSums(images=9, seconds=1.0, train_seconds=0.5))
    assert state.seconds == 3.0
    assert state.images_per_s == 50 / 2.0
    assert TrainingState().images_per_s == 0.0
