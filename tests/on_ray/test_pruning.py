from __future__ import annotations

from pathlib import Path

from transferlib.errors import StorageError
from transferlib.on_ray.pruning import DropLosers
from transferlib.records import TrialKey, TrialResult, TrialSpec
from transferlib.runs import RunFolder


def end(run: RunFolder, trial: TrialSpec, accuracy: float, state: str = "done") -> None:
    folder = run.trial(trial.trial_id)
    folder.path.mkdir(parents=True)
    folder.best.write_bytes(b"model")
    result = TrialResult(
        trial.key,
        trial.lr,
        state,  # type: ignore[arg-type]
        val_accuracy=accuracy,
    )
    folder.result.write_text(result.to_json())


def drop_losers(run: RunFolder, trials: list[TrialSpec]) -> None:
    DropLosers(run, trials, lambda path: path.unlink(missing_ok=True)).drop()


def kept(run: RunFolder, trials: list[TrialSpec]) -> list[bool]:
    return [run.trial(trial.trial_id).best.exists() for trial in trials]


def trials_of(strategy: str) -> list[TrialSpec]:
    keys = [TrialKey("resnet18", strategy, 0, 0, candidate) for candidate in range(3)]
    return [TrialSpec(key, 0.01 * (key.candidate + 1)) for key in keys]


def test_losers_go_only_when_every_candidate_has_ended(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "compare")
    trials = trials_of("full")
    end(run, trials[0], 0.5)
    end(run, trials[1], 0.9)
    drop_losers(run, trials)
    assert kept(run, trials) == [True, True, False]
    end(run, trials[2], 0.7)
    drop_losers(run, trials)
    assert kept(run, trials) == [False, True, False]


def test_candidates_level_in_accuracy_and_other_arms_keep_their_models(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "compare")
    level, other = trials_of("full"), trials_of("last_layers")
    for trial in level:
        end(run, trial, 0.8)
    for trial in other[:2]:
        end(run, trial, 0.1)
    drop_losers(run, [*level, *other])
    assert kept(run, level) == [True] * 3
    assert kept(run, other) == [True, True, False]


def test_a_failed_candidate_neither_wins_nor_holds_the_others_back(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "compare")
    trials = trials_of("full")
    end(run, trials[0], 0.6)
    end(run, trials[1], 0.0, state="failed")
    end(run, trials[2], 0.4)
    drop_losers(run, trials)
    assert kept(run, trials)[0]
    assert not kept(run, trials)[2]


def test_a_spared_candidate_has_no_model_and_holds_nobody_up(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "compare")
    trials = trials_of("full")
    end(run, trials[0], 0.0, state="spared")
    end(run, trials[1], 0.5)
    end(run, trials[2], 0.7)
    run.trial(trials[0].trial_id).best.unlink()
    drop_losers(run, trials)
    assert kept(run, trials) == [False, False, True]


def test_a_model_is_asked_for_once_and_a_store_that_fails_does_not_end_the_trials(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "compare")
    trials = trials_of("full")
    for trial, accuracy in zip(trials, (0.6, 0.9, 0.4), strict=True):
        end(run, trial, accuracy)
    asked: list[str] = []

    def refuse(path: Path) -> None:
        asked.append(path.parent.name)
        raise StorageError("the store is away")

    callback = DropLosers(run, trials, refuse)
    callback.drop()
    callback.drop()
    assert asked == [trials[0].trial_id, trials[2].trial_id]
    assert kept(run, trials) == [True] * 3
