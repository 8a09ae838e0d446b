"""Which trials are trained: equal chances for all arms (law 5), and the same decision however often a job is killed."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from transferlib.comparison.tuning import Tuning
from transferlib.records import FINISHED, TrialKey, TrialResult, TrialSpec

RATES = (0.01, 0.03)
ARMS = ("last_layers", "full")


def trials_of(
    num_seeds: int = 5, rates: tuple[float, ...] = RATES, arms: tuple[str, ...] = ARMS
) -> tuple[TrialSpec, ...]:
    """Return trials as a plan lists them."""
    return tuple(
        TrialSpec(TrialKey("resnet18", arm, 0, seed, candidate), lr)
        for seed in range(num_seeds)
        for candidate, lr in enumerate(rates)
        for arm in arms
    )


def ended(trial: TrialSpec, accuracy: float = 0.5, loss: float = 1.0, state: str = "done") -> TrialResult:
    return TrialResult(trial.key, trial.lr, state, val_accuracy=accuracy, val_loss=loss)  # type: ignore[arg-type]


def rate_after(*values: tuple[tuple[float, float] | None, ...], rates: tuple[float, ...] = RATES) -> float:
    """Return the rate of the last seed, by (accuracy, log-loss) of each first seed at each rate; None: failed."""
    trials = trials_of(len(values) + 1, rates, ("full",))
    results = {}
    for trial in trials:
        if trial.seed < len(values):
            value = values[trial.seed][trial.candidate]
            results[trial.trial_id] = ended(trial, state="failed") if value is None else ended(trial, *value)
    (only,) = Tuning(trials, len(values)).ready(results)
    return only.lr


def run(tuning: Tuning, results: dict[str, TrialResult], generator: random.Random, most: int) -> dict[str, TrialResult]:
    """Train at most so many trials in any order that is allowed, and spare as a job does."""
    for _ in range(most):
        results |= {result.trial_id: result for result in tuning.spared(results)}
        ready = tuning.ready(results)
        if not ready:
            break
        trial = generator.choice(ready)
        luck = random.Random(trial.trial_id)
        state = "failed" if luck.random() < 0.2 else "done"
        results[trial.trial_id] = ended(trial, luck.choice((0.5, 0.6)), luck.choice((0.1, 0.2)), state)
    return results


@pytest.mark.parametrize(
    ("trials", "num_seeds"),
    [(trials_of(), None), (trials_of(), 5), (trials_of(), 9), (trials_of(rates=(0.1,)), 2)],
    ids=["not asked for", "all seeds", "more than all", "one rate"],
)
def test_where_nothing_is_left_to_decide_all_trials_train_at_once(
    trials: tuple[TrialSpec, ...], num_seeds: int | None
) -> None:
    tuning = Tuning(trials, num_seeds)
    assert tuning.ready({}) == list(trials)
    assert tuning.expected({}) == trials
    assert tuning.waits({}) == {}
    assert tuning.most_side_by_side == len(trials)


def test_five_seeds_of_which_two_tune_are_seven_trainings_an_arm() -> None:
    tuning = Tuning(trials_of(), 2)
    assert Counter(trial.arm for trial in tuning.expected({})) == dict.fromkeys(
        ("resnet18-last_layers", "resnet18-full"), 7
    )
    assert [trial.seed for trial in tuning.ready({})] == [0] * 4 + [1] * 4
    assert len(tuning.waits({})) == 2 * 3 * 2
    assert tuning.most_side_by_side == 2 * 4
    assert Tuning(trials_of(), 1).most_side_by_side == 2 * 4  # four later seeds


def test_the_first_seeds_are_the_first_of_the_plan() -> None:
    trials = tuple(sorted(trials_of(3), key=lambda trial: -trial.seed))
    assert {trial.seed for trial in Tuning(trials, 1).ready({})} == {2}


def test_the_mean_over_the_first_seeds_decides_then_log_loss_then_the_smaller_rate() -> None:
    assert rate_after(((0.9, 1.0), (0.8, 1.0)), ((0.5, 1.0), (0.7, 1.0))) == 0.03
    assert rate_after(((0.9, 1.0), (0.8, 1.0)), ((0.6, 1.0), (0.6, 1.0))) == 0.01
    assert rate_after(((0.9, 0.3), (0.9, 0.2)), ((0.6, 0.3), (0.6, 0.3))) == 0.03
    assert rate_after(((0.9, 0.3), (0.9, 0.3)), ((0.6, 0.3), (0.6, 0.3))) == 0.01


def test_the_same_hits_over_other_seeds_are_level() -> None:
    assert (0.7 + 0.2) / 2 != (0.1 + 0.8) / 2
    assert rate_after(((0.7, 0.2), (0.1, 0.1)), ((0.2, 0.2), (0.8, 0.1))) == 0.03


def test_the_metric_that_chooses_decides_whatever_the_accuracy() -> None:
    trials = trials_of(2, arms=("full",))
    results = {
        t.trial_id: TrialResult(t.key, t.lr, "done", val_accuracy=s, val_score=-s)
        for t, s in zip(trials, (0.9, 0.5), strict=False)
    }
    assert [trial.lr for trial in Tuning(trials, 1).ready(results)] == [0.03]


def test_a_rate_that_failed_comes_after_one_that_did_not() -> None:
    assert rate_after(((0.9, 0.1), (0.5, 1.0)), (None, (0.5, 1.0))) == 0.03
    assert rate_after((None, (0.5, 1.0)), (None, None)) == 0.03


def test_where_every_first_trial_failed_later_seeds_are_trained_at_every_rate() -> None:
    trials = trials_of(3, arms=("full",))
    results = {trial.trial_id: ended(trial, state="failed") for trial in trials if trial.seed == 0}
    tuning = Tuning(trials, 1)
    assert tuning.ready(results) == [trial for trial in trials if trial.seed > 0]
    assert tuning.spared(results) == []


def test_an_arm_waits_for_its_own_first_trials_alone() -> None:
    trials = trials_of(3)
    first = [trial for trial in trials if trial.seed == 0 and trial.strategy == "full"]
    results = {trial.trial_id: ended(trial, 0.5 + trial.lr) for trial in first}
    tuning = Tuning(trials, 1)
    assert {trial.trial_id for trial in tuning.ready(results)} == {
        "resnet18-last_layers-s0-c0",
        "resnet18-last_layers-s0-c1",
        "resnet18-full-s1-c1",
        "resnet18-full-s2-c1",
    }
    assert {trial_id.split("-s")[0] for trial_id in tuning.waits(results)} == {"resnet18-last_layers"}
    assert [one.candidate for one in tuning.waits(results)["resnet18-last_layers-s2-c0"]] == [0, 1]
    results.pop("resnet18-full-s0-c0")
    assert "resnet18-full-s1-c1" in tuning.waits(results)


def test_a_first_trial_that_was_stopped_decides_nothing() -> None:
    trials = trials_of(2, arms=("full",))
    results = {trial.trial_id: ended(trial, state="stopped") for trial in trials if trial.seed == 0}
    assert [trial.seed for trial in Tuning(trials, 1).ready(results)] == [0, 0]


def test_a_spared_trial_says_which_rate_was_better_and_where() -> None:
    trials = trials_of(3, arms=("full",))
    results = {trial.trial_id: ended(trial, 0.5 + trial.lr) for trial in trials if trial.seed < 2}
    (spared,) = Tuning(trials, 2).spared(results)
    assert (spared.trial_id, spared.lr, spared.state) == ("resnet18-full-s2-c0", 0.01, "spared")
    assert spared.reason == "rate 0.03 was better on seeds 0 and 1"
    assert Tuning(trials, 2).spared({**results, spared.trial_id: spared}) == []


@pytest.mark.parametrize("seed", range(20))
def test_every_arm_gets_the_same_number_of_trainings_and_every_trial_an_end(seed: int) -> None:
    trials = trials_of(5, (0.01, 0.03, 0.1), ("feature_extraction", "last_layers", "full"))
    results = run(Tuning(trials, 2), {}, random.Random(seed), len(trials) + 1)
    assert set(results) == {trial.trial_id for trial in trials}
    assert {result.state for result in results.values()} <= FINISHED
    trained = Counter(result.arm for result in results.values() if result.state != "spared")
    assert set(trained.values()) == {2 * 3 + 3}


@pytest.mark.parametrize("cut", range(15))
def test_a_job_that_is_killed_anywhere_ends_with_the_same_trials(cut: int) -> None:
    trials = trials_of()
    undisturbed = run(Tuning(trials, 2), {}, random.Random(0), 99)
    before = run(Tuning(trials, 2), {}, random.Random(cut), cut)
    on_disk = {
        trial_id: result
        for index, (trial_id, result) in enumerate(before.items())
        if result.state != "spared" or index % 2
    }
    assert run(Tuning(trials, 2), on_disk, random.Random(cut + 1), 99) == undisturbed
