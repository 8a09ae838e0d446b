from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from tests.synthetic_run import Story, write_run
from transferlib.comparison.choose import Choice, ChosenTrial, choose, choose_candidates, read_choice
from transferlib.errors import RunFolderError
from transferlib.evaluation.metrics import Metrics
from transferlib.evaluation.predictions import Predictions
from transferlib.records import TrialKey, TrialResult, TrialSpec

RATES = (0.01, 0.03, 0.1)
SMALL = Story(strategies=("last_layers", "full"), seeds=(0,), classes=("a", "b"), per_class=(1, 4, 4))


def metrics(accuracy: float, log_loss: float) -> Metrics:
    return Metrics(10, accuracy, accuracy, accuracy, None, log_loss, 0.0, np.zeros((2, 2), np.int64))


def trials_of(strategy: str, rates: tuple[float, ...] = RATES) -> list[TrialSpec]:
    return [TrialSpec(TrialKey("resnet18", strategy, 0, 0, candidate), lr) for candidate, lr in enumerate(rates)]


def ended(trial: TrialSpec, state: str = "done", reason: str = "") -> TrialResult:
    return TrialResult(trial.key, trial.lr, state, reason)  # type: ignore[arg-type]


def chosen_lr(values: list[tuple[float, float]]) -> tuple[float, str]:
    trials = trials_of("full", RATES[: len(values)])
    results = {t.trial_id: ended(t) for t in trials}
    val = {t.trial_id: metrics(*value) for t, value in zip(trials, values, strict=True)}
    only = choose("run", trials, results, val).chosen[0]
    return only.lr, only.edge


def make_perfect(folder: Path) -> None:
    """Make a trial right on all of validation."""
    old = Predictions.load(folder / "predictions-val.parquet")
    replace(old, logits=50 * np.eye(2, dtype=np.float32)[old.labels]).save(folder / "predictions-val.parquet")


def test_accuracy_decides_before_log_loss_before_the_smaller_rate() -> None:
    assert chosen_lr([(0.8, 0.1), (0.9, 0.9), (0.7, 0.0)])[0] == 0.03
    assert chosen_lr([(0.9, 0.5), (0.9, 0.4), (0.9, 0.6)])[0] == 0.03
    assert chosen_lr([(0.8, 0.5), (0.9, 0.4), (0.9, 0.4)])[0] == 0.03


def test_a_rate_at_the_edge_of_its_grid_is_marked() -> None:
    assert chosen_lr([(0.9, 0.1), (0.8, 0.1), (0.7, 0.1)])[1] == "lowest"
    assert chosen_lr([(0.7, 0.1), (0.8, 0.1), (0.9, 0.1)])[1] == "highest"
    assert chosen_lr([(0.7, 0.1), (0.9, 0.1), (0.8, 0.1)])[1] == "inside"
    assert chosen_lr([(0.9, 0.1)])[1] == "no grid"


def test_failed_trials_are_listed_with_their_reasons_and_never_chosen() -> None:
    trials = trials_of("full") + trials_of("last_layers")
    results = {t.trial_id: ended(t, "failed", f"reason {t.lr}") for t in trials}
    survivor = trials[0]
    results[survivor.trial_id] = ended(survivor)
    choice = choose("run", trials, results, {survivor.trial_id: metrics(0.2, 3.0)})
    assert choice.trial_ids == (survivor.trial_id,)
    assert len(choice.failed) == 5
    assert choice.failed[0].reason == "reason 0.03"
    assert [(key.arm, key.seed) for key in choice.without_result] == [("resnet18-last_layers", 0)]


def test_a_seed_that_goes_on_with_one_rate_is_chosen_from_what_was_trained() -> None:
    trials = trials_of("full") + trials_of("last_layers")
    results = {t.trial_id: ended(t, "spared", "rate 0.03 was better on seeds 0 and 1") for t in trials}
    done, failed = trials[1], trials[4]
    results |= {done.trial_id: ended(done), failed.trial_id: ended(failed, "failed", "not finite")}
    choice = choose("run", trials, results, {done.trial_id: metrics(0.8, 0.5)})
    (only,) = choice.chosen
    assert (only.trial_id, only.edge) == (done.trial_id, "inside"), (
        "the grid is the arm's, not what one seed was tried at"
    )
    assert [(key.arm, key.seed) for key in choice.without_result] == [("resnet18-last_layers", 0)]
    assert [trial.trial_id for trial in choice.failed] == [failed.trial_id]
    assert Choice.from_plain(choice.to_plain()) == choice


def test_the_choice_is_saved_and_found_again(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    saved = run.choice.read_text()
    assert choose_candidates(run) == read_choice(run)
    assert run.choice.read_text() == saved


def test_a_choice_of_schema_1_is_read_with_its_figures() -> None:
    trial = {"arm": "resnet18-full", "seed": 1, "trial_id": "resnet18-full-s1-c2", "candidate": 2, "lr": 0.1}
    plain = {
        "schema": 1,
        "run": "20261125-014503-compare-3fa9",
        "selected_by": "validation accuracy, then log-loss, then the smaller rate",
        "chosen": [{**trial, "edge": "highest", "val_accuracy": 0.9, "val_log_loss": 0.4}],
        "failed": [{**trial, "trial_id": "resnet18-full-s1-c0", "candidate": 0, "reason": "not finite"}],
        "without_result": [],
        "grids": {"resnet18-full": [0.01, 0.03, 0.1]},
    }
    choice = Choice.from_plain(plain)
    assert choice.metric == "accuracy"
    assert choice.model is not None
    assert (choice.model.key, choice.model.val) == (TrialKey("resnet18", "full", 0, 1, 2), 0.9)
    assert choice.failed[0].trial_id == "resnet18-full-s1-c0"


def test_the_model_is_best_over_arms_and_seeds_ties_go_to_loss_parameters_and_rate() -> None:
    def candidate(strategy: str, seed: int, val: float, loss: float, parameters: int, lr: float) -> ChosenTrial:
        return ChosenTrial(TrialKey("resnet18", strategy, 0, seed, 0), lr, val, loss, parameters, "inside")

    level = [
        candidate("full", 0, 0.9, 0.30, 10, 0.1),
        candidate("full", 1, 0.9, 0.25, 20, 0.1),
        candidate("last_layers", 0, 0.9, 0.25, 10, 0.1),
        candidate("last_layers", 1, 0.9, 0.25, 10, 0.03),
        candidate("scratch", 0, 0.89, 0.01, 1, 0.001),
    ]
    for order in permutations(level):
        assert Choice("run", "accuracy", (), order, (), (), {}).model == level[3]
    worse_is_higher = Choice(
        "run", "log_loss", (), (replace(level[0], val=0.3), replace(level[1], val=0.2)), (), (), {}
    )
    assert worse_is_higher.model is not None
    assert worse_is_higher.model.val == 0.2


def test_choosing_waits_for_every_trial(tmp_path: Path) -> None:
    run = write_run(tmp_path, replace(SMALL, unfinished=("resnet18-full-s0-c2",)))
    with pytest.raises(RunFolderError, match="1 of 6 trials of"):
        choose_candidates(run)
    assert not run.choice.exists()


def test_the_choice_may_change_until_the_test_set_is_read(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    before = read_choice(run)
    assert before is not None
    loser = next(p for p in (run.path / "trials").iterdir() if p.name not in before.trial_ids)
    make_perfect(loser)
    with pytest.raises(RunFolderError, match="would change, but 2 trials have read the test set"):
        choose_candidates(run)
    assert read_choice(run) == before
    for path in run.path.glob("trials/*/predictions-test.parquet"):
        path.unlink()
    assert loser.name in choose_candidates(run).trial_ids


@pytest.mark.parametrize("text", [None, "", "[]", '{"schema": 2}', '{"schema": 2, "chosen": 5}'])
def test_a_choice_that_is_lost_is_made_again_and_is_the_one_that_was(text: str | None, tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    before = run.choice.read_text()
    run.choice.unlink()
    if text is not None:
        run.choice.write_text(text)
        with pytest.raises(RunFolderError, match=r"choice\.json"):
            read_choice(run)
    choose_candidates(run)
    assert run.choice.read_text() == before


def test_no_other_choice_is_made_after_the_test_set_was_read(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    before = read_choice(run)
    assert before is not None
    make_perfect(next(p for p in (run.path / "trials").iterdir() if p.name not in before.trial_ids))
    run.choice.unlink()
    with pytest.raises(RunFolderError, match="is missing and would be another one, but 2 trials have read the test"):
        choose_candidates(run)


def test_choosing_reads_no_test_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path, SMALL)
    read: list[Path] = []
    load = Predictions.load.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Predictions, "load", classmethod(lambda cls, path: read.append(path) or load(cls, path)))
    choose_candidates(run)
    assert {path.name for path in read} == {"predictions-val.parquet"}
