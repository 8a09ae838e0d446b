import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from transferlib.errors import WeightsError
from transferlib.models.run_weights import find_run_model
from transferlib.models.weights import load_source_weights
from transferlib.models.zoo import build_model
from transferlib.records import TrialKey, TrialResult, TrialSpec
from transferlib.runs import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path, "compare")
    run.choice.write_text("{}")
    return run


def add_trial(
    run: RunFolder,
    seed: int,
    accuracy: float,
    *,
    is_kept: bool = True,
    architecture: str = "resnet18",
    **changes: object,
) -> str:
    spec = TrialSpec(TrialKey("resnet18", "full", 0, seed, 0), 0.03)
    key = replace(spec.key, architecture=architecture)
    result = TrialResult(key, 0.03, "done", val_accuracy=accuracy, val_loss=1.0)
    folder = run.trial(spec.trial_id)
    folder.path.mkdir()
    folder.result.write_text(replace(result, **changes).to_json())  # type: ignore[arg-type]
    if is_kept:
        folder.best.touch()
    return spec.trial_id


def test_best_on_validation_over_seeds_is_taken_and_named(run: RunFolder) -> None:
    add_trial(run, 0, 0.8)
    best = add_trial(run, 1, 0.9)
    add_trial(run, 2, 0.9, val_loss=1.1)
    model = find_run_model(run.path, "resnet18")
    assert model.path == run.trial(best).best
    assert model.origin == f"{run.run_id}/{best} (best of 3 on validation, accuracy 0.900)"
    assert model.notes == ()


def test_the_model_that_the_run_hands_over_comes_before_any_other(run: RunFolder) -> None:
    handed = add_trial(run, 0, 0.8)
    add_trial(run, 1, 0.8, val_loss=0.9)
    run.choice.write_text(json.dumps({"schema": 2, "model": handed}))
    assert find_run_model(run.path, "resnet18").path == run.trial(handed).best


def test_trials_without_a_model_or_an_end_are_passed_over(run: RunFolder) -> None:
    add_trial(run, 0, 0.99, is_kept=False)
    add_trial(run, 1, 0.98, state="failed")
    add_trial(run, 2, 0.97, architecture="resnet50")
    (run.path / "trials" / "resnet18-full-s3-c0").mkdir()
    usable = add_trial(run, 4, 0.5)
    assert find_run_model(run.path, "resnet18").path == run.trial(usable).best


def test_run_without_the_architecture_says_what_it_has(run: RunFolder) -> None:
    add_trial(run, 0, 0.9, architecture="vgg16")
    with pytest.raises(WeightsError, match=r"no finished model of resnet18\. Finished and kept: vgg16"):
        find_run_model(run.path, "resnet18")


def test_run_that_did_not_finish_is_noted(run: RunFolder) -> None:
    add_trial(run, 0, 0.9)
    run.choice.unlink()
    assert "did not finish" in find_run_model(run.path, "resnet18").notes[0]


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a run folder"):
        find_run_model(tmp_path, "resnet18")


def test_run_folder_and_trial_folder_give_the_same_weights_with_their_own_statistics(run: RunFolder) -> None:
    trial_id = add_trial(run, 0, 0.9)
    state = dict(build_model("resnet18", 6, source=None, seed=5).state_dict())
    metadata = {"architecture": "resnet18", "mean": json.dumps([0.5] * 3), "std": json.dumps([0.25] * 3)}
    save_file(state, run.trial(trial_id).best, metadata)
    from_run = load_source_weights(str(run.path), "resnet18")
    from_trial = load_source_weights(str(run.trial(trial_id).path), "resnet18")
    assert from_run is not None
    assert from_trial is not None
    assert from_run.mean == from_trial.mean == (0.5, 0.5, 0.5)
    assert from_run.sha256 == from_trial.sha256
    assert torch.equal(from_run.state["conv1.weight"], state["conv1.weight"])
    assert from_trial.origin == f"{run.run_id}/{trial_id}"


def test_a_damaged_model_is_no_source_of_weights(run: RunFolder) -> None:
    folder = run.trial(add_trial(run, 0, 0.9, files={"best.safetensors": hashlib.sha256(b"whole").hexdigest()}))
    folder.best.write_bytes(b"whole")
    assert find_run_model(folder.path, "resnet18").path == folder.best
    folder.best.write_bytes(b"whOle")
    for named in (run.path, folder.path):
        with pytest.raises(WeightsError, match=r"is damaged: .* submit compare --resume"):
            find_run_model(named, "resnet18")
