from __future__ import annotations

import math

import pytest

from transferlib.training.lr_schedule import LrSchedule


def test_warm_up_is_linear_then_the_cosine_falls_from_the_peak() -> None:
    schedule = LrSchedule.from_epochs(epochs=5, warmup_epochs=0.5, steps_per_epoch=4)
    assert (schedule.num_steps, schedule.num_warmup_steps) == (20, 2)
    assert [schedule.factor(step) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert schedule.factor(11) == pytest.approx(0.5)
    assert schedule.factor(19) == pytest.approx(0.5 * (1 + math.cos(math.pi * 17 / 18)))


def test_warm_up_takes_at_most_a_fifth_of_the_training() -> None:
    assert LrSchedule.from_epochs(epochs=2, warmup_epochs=3, steps_per_epoch=10).num_warmup_steps == 4
    assert LrSchedule.from_epochs(epochs=1, warmup_epochs=1, steps_per_epoch=4).num_warmup_steps == 0


@pytest.mark.parametrize("warmup_epochs", [0, 0.5, 1])
@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(1, 1), (1, 7), (10, 3)])
def test_every_step_has_a_rate_above_zero_and_none_passes_the_peak(
    epochs: int, steps_per_epoch: int, warmup_epochs: float
) -> None:
    schedule = LrSchedule.from_epochs(epochs, warmup_epochs, steps_per_epoch)
    factors = [schedule.factor(step) for step in range(epochs * steps_per_epoch)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1
    after = factors[schedule.num_warmup_steps :]
    assert after == sorted(after, reverse=True)
