from __future__ import annotations

import json

import pytest

from transferlib.data.schedule import Position
from transferlib.records import EpochRecord, PhaseTotals, TrialTotals
from transferlib.training.state import BestEpoch, EpochSums, TrainingState, take_up_totals

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
        totals=TrialTotals(train=PhaseTotals(65, 9, 1.5, 0.25), steps_redone=2, checkpoint_bytes=800),
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


def test_a_checkpoint_is_counted_wherever_it_is_charged() -> None:
    state = TrainingState(position=Position(1, 0), records=[RECORD])
    state.charge_checkpoint(1.0, 800)
    state.position = Position(1, 2)
    state.charge_checkpoint(0.5, 200)
    assert (state.totals.checkpoint_s, state.totals.checkpoint_bytes) == (1.5, 1000)


def test_a_checkpoint_from_before_there_were_totals_goes_on_from_zero() -> None:
    plain = TrainingState(position=Position(1, 3), records=[RECORD]).to_plain()
    del plain["totals"]
    state = TrainingState.from_plain(json.loads(json.dumps(plain)))
    assert state.position == Position(1, 3)
    assert take_up_totals(state.totals, None) == TrialTotals()


def totals(steps: int, redone: int = 0) -> TrialTotals:
    train = PhaseTotals(images=8 * steps, steps=steps, seconds=0.5 * steps, data_wait_s=0.1 * steps)
    return TrialTotals(train=train, steps_redone=redone, checkpoint_s=0.01 * steps)


@pytest.mark.parametrize(
    ("saved", "shown", "expected"),
    [
        pytest.param(totals(10), totals(10), totals(10), id="a stop: all that was done was saved"),
        pytest.param(totals(10), totals(15), totals(15, redone=5), id="a kill: five steps to be taken again"),
        pytest.param(totals(10), totals(17, redone=5), totals(17, redone=7), id="killed again before a checkpoint"),
        pytest.param(totals(17, redone=5), totals(20, redone=5), totals(20, redone=8), id="killed after one"),
        pytest.param(totals(0), totals(6), totals(6, redone=6), id="no checkpoint can serve: training begins anew"),
        pytest.param(totals(12, redone=3), totals(11, redone=3), totals(12, redone=3), id="shown before it was saved"),
        pytest.param(totals(12, redone=3), None, totals(12, redone=3), id="nothing was shown"),
        pytest.param(totals(0), totals(0), totals(0), id="a run from before there were totals"),
    ],
)
def test_totals_never_fall_and_steps_that_stand_are_those_of_the_checkpoint(
    saved: TrialTotals, shown: TrialTotals | None, expected: TrialTotals
) -> None:
    taken_up = take_up_totals(saved, shown)
    assert taken_up == expected
    assert taken_up.train.steps - taken_up.steps_redone == saved.train.steps - saved.steps_redone


def test_the_best_epoch_is_by_the_comparisons_score_then_by_loss() -> None:
    best = BestEpoch(0, val_accuracy=0.9, val_loss=0.3, position=Position(1, 0), val_score=0.5)
    assert best.is_worse_than(0.6, 0.9)
    assert best.is_worse_than(0.5, 0.2)
    assert not best.is_worse_than(0.4, 0.1)
    older = BestEpoch(0, val_accuracy=0.9, val_loss=0.3, position=Position(1, 0))
    assert not older.is_worse_than(0.8, 0.1), "what an older version wrote was judged by accuracy"
