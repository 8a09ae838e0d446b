"""What a trial ends in does not depend on where it was interrupted, or how."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import StochasticDepth, stochastic_depth

from tests.training.doubles import DyingStream, KilledError, StoppedWorker
from transferlib.errors import CheckpointError
from transferlib.models.weights import SourceWeights
from transferlib.records import EpochRecord, TrialKey, TrialResult, TrialSpec
from transferlib.training.trial import TrialInputs, train_trial
from transferlib.training.worker import LocalWorker

pytestmark = pytest.mark.slow

MakeInputs = Callable[..., TrialInputs]
TIMES = {"seconds", "train_seconds", "data_wait_s", "checkpoint_s", "peak_memory_bytes"}
TRAIN_STEPS, VAL_STEPS = 6, 1  # of 41 and 13 images, 8 and 16 at a time


def figures(records: Sequence[EpochRecord]) -> list[dict[str, object]]:
    return [{k: v for k, v in dataclasses.asdict(record).items() if k not in TIMES} for record in records]


def rows_of(inputs: TrialInputs) -> list[str]:
    return [row.split(",")[0] for row in inputs.folder.metrics.read_text().splitlines()]


def result_of(inputs: TrialInputs) -> TrialResult:
    result = inputs.folder.read_result()
    assert result is not None
    return result


def checkpoints_of(inputs: TrialInputs) -> list[Path]:
    return sorted(inputs.folder.checkpoints.iterdir())


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    records: list[EpochRecord]
    result: TrialResult


@pytest.fixture
def undisturbed(make_inputs: MakeInputs, request: pytest.FixtureRequest) -> Undisturbed:
    """Return how the trial ends when nothing happens; trained once for all tests."""
    if not hasattr(request.config, "_undisturbed"):
        inputs = make_inputs("undisturbed", epochs=2)
        request.config._undisturbed = Undisturbed(list(train_trial(inputs, LocalWorker())), result_of(inputs))
    found: Undisturbed = request.config._undisturbed
    return found


@pytest.mark.parametrize(
    ("looks", "position"),
    [
        pytest.param(3, "e00000-s000003", id="mid-epoch"),
        pytest.param(TRAIN_STEPS, "e00000-s000006", id="after the last train step"),
        pytest.param(TRAIN_STEPS + VAL_STEPS, "e00000-s000006", id="in validation"),
        pytest.param(TRAIN_STEPS + VAL_STEPS + 1, "e00001-s000001", id="in the second epoch"),
    ],
)
def test_a_stop_loses_no_finished_step(
    make_inputs: MakeInputs, undisturbed: Undisturbed, looks: int, position: str
) -> None:
    inputs = make_inputs(epochs=2)
    before = list(train_trial(inputs, StoppedWorker(at=looks)))
    assert checkpoints_of(inputs)[-1].name == position
    assert result_of(inputs).state == "stopped"
    assert "Stopped in epoch" in result_of(inputs).reason
    after = list(train_trial(inputs, LocalWorker()))
    assert figures(before + after) == figures(undisturbed.records)
    assert result_of(inputs).weights_sha256 == undisturbed.result.weights_sha256
    assert result_of(inputs).state == "done"
    assert rows_of(inputs) == ["epoch", "0", "1"]


def test_a_killed_trial_goes_on_from_its_last_checkpoint(make_inputs: MakeInputs, undisturbed: Undisturbed) -> None:
    inputs = make_inputs(epochs=2)
    dying = dataclasses.replace(inputs, stream=DyingStream(inputs.stream, TRAIN_STEPS + VAL_STEPS + 4))
    with pytest.raises(KilledError):
        list(train_trial(dying, LocalWorker()))
    assert figures(list(train_trial(inputs, LocalWorker()))) == figures(undisturbed.records[1:])
    assert result_of(inputs).weights_sha256 == undisturbed.result.weights_sha256


def test_a_truncated_newest_checkpoint_costs_one_epoch_and_changes_nothing(
    make_inputs: MakeInputs, undisturbed: Undisturbed, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = make_inputs(epochs=2)
    list(train_trial(inputs, StoppedWorker(at=TRAIN_STEPS + VAL_STEPS + 3)))
    os.truncate(checkpoints_of(inputs)[-1] / "optimizer.safetensors", 100)
    assert figures(list(train_trial(inputs, LocalWorker()))) == figures(undisturbed.records[1:])
    assert "e00001-s000003" in caplog.text
    assert result_of(inputs).weights_sha256 == undisturbed.result.weights_sha256


def test_all_checkpoints_damaged_begins_anew_and_ends_the_same(
    make_inputs: MakeInputs, undisturbed: Undisturbed, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = make_inputs(epochs=2)
    list(train_trial(inputs, StoppedWorker(at=2)))
    os.truncate(checkpoints_of(inputs)[0] / "state.json", 10)
    assert figures(list(train_trial(inputs, LocalWorker()))) == figures(undisturbed.records)
    assert "begins anew" in caplog.text


def test_checkpoints_within_an_epoch_come_by_time_and_change_nothing(
    make_inputs: MakeInputs, undisturbed: Undisturbed
) -> None:
    inputs = make_inputs(epochs=2)
    training = inputs.job.training.model_copy(update={"checkpoint_every_s": 0})  # at every step
    often = dataclasses.replace(inputs, job=inputs.job.model_copy(update={"training": training}))
    dying = dataclasses.replace(often, stream=DyingStream(inputs.stream, 4))
    with pytest.raises(KilledError):
        list(train_trial(dying, LocalWorker()))
    assert [path.name for path in checkpoints_of(inputs)] == ["e00000-s000003", "e00000-s000004"]
    assert figures(list(train_trial(inputs, LocalWorker()))) == figures(undisturbed.records)
    assert result_of(inputs).weights_sha256 == undisturbed.result.weights_sha256


def test_adamw_in_bf16_goes_on_bit_for_bit_too(make_inputs: MakeInputs) -> None:
    options = {"epochs": 1, "optimizer": "adamw", "precision": "bf16", "lr": 1e-3}
    whole, cut = make_inputs("whole", **options), make_inputs("cut", **options)
    list(train_trial(whole, LocalWorker()))
    list(train_trial(cut, StoppedWorker(at=3)))
    list(train_trial(cut, LocalWorker()))
    assert result_of(cut).weights_sha256 == result_of(whole).weights_sha256
    assert result_of(cut).precision == "bf16"


class OneStageOfThree(TrialInputs):
    """Train the third stage and the head: blocks that StochasticDepth drops, and few weights."""

    def stage_factors(self) -> dict[str, float]:
        return {stage: 1.0 if stage in ("stage2", "head") else 0.0 for stage in super().stage_factors()}


@pytest.mark.parametrize("architecture", ["efficientnet_v2_s", "convnext_tiny"])
def test_stochastic_depth_goes_on_bit_for_bit(
    make_inputs: MakeInputs, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is dropped in a step depends on its place alone, not on what was drawn before it."""
    dropped: list[Tensor] = []

    def drop_half(layer: StochasticDepth, x: Tensor) -> Tensor:
        kept = stochastic_depth(x, 0.5, layer.mode, layer.training)  # a network's own rate is 1 to 3 % here
        dropped.append((kept == 0).flatten(1).all(1))
        return kept

    monkeypatch.setattr(StochasticDepth, "forward", drop_half)
    ends = []
    for name in ("whole", "cut"):
        inputs = make_inputs(name, strategy="scratch", epochs=1)
        trial = TrialSpec(TrialKey(architecture, "scratch", 0, seed=5, candidate=0), lr=0.01)
        inputs = OneStageOfThree(**{**vars(inputs), "trial": trial, "source": None})
        if name == "cut":
            list(train_trial(inputs, StoppedWorker(at=3)))
            torch.manual_seed(99)  # another process goes on, whose generator stands elsewhere
        dropped.clear()
        ends.append((figures(list(train_trial(inputs, LocalWorker()))), result_of(inputs).weights_sha256))
        assert any(rows.any() and not rows.all() for rows in dropped), "nothing is dropped after the cut"
    assert ends[0] == ends[1]


def test_a_checkpoint_holds_only_what_training_changes(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="feature_extraction")
    list(train_trial(inputs, StoppedWorker(at=2)))
    (checkpoint,) = checkpoints_of(inputs)
    assert sum(path.stat().st_size for path in checkpoint.iterdir()) < 20_000
    assert {path.suffix for path in checkpoint.iterdir()} == {".json", ".safetensors"}


def test_another_source_is_refused(make_inputs: MakeInputs, source: SourceWeights) -> None:
    inputs = make_inputs()
    list(train_trial(inputs, StoppedWorker(at=2)))
    other = dataclasses.replace(inputs, source=dataclasses.replace(source, sha256="f" * 64))
    with pytest.raises(CheckpointError, match=r"source_sha256 was .* is 'ffff"):
        list(train_trial(other, LocalWorker()))


def test_other_images_are_refused(make_inputs: MakeInputs) -> None:
    """A manifest that was made anew from what was left of the photos trained the rest of an arm."""
    inputs = make_inputs()
    list(train_trial(inputs, StoppedWorker(at=2)))
    splits = inputs.images.splits.copy()
    train = np.flatnonzero(splits == 0)
    splits[train[0]] = 1
    other = dataclasses.replace(inputs, images=dataclasses.replace(inputs.images, splits=splits))
    with pytest.raises(CheckpointError, match=r"images was '[0-9a-f]{64}', is "):
        list(train_trial(other, LocalWorker()))


def test_a_finished_trial_is_not_trained_again_and_leaves_no_checkpoints(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="feature_extraction", epochs=1)
    assert len(list(train_trial(inputs, LocalWorker()))) == 1
    assert not inputs.folder.checkpoints.exists()
    inputs.folder.checkpoints.mkdir()  # as if killed between the result and the tidying
    before = inputs.folder.result.read_bytes()
    assert list(train_trial(inputs, LocalWorker())) == []
    assert inputs.folder.result.read_bytes() == before
    assert not inputs.folder.checkpoints.exists()


def test_a_trial_that_is_asked_to_stop_before_it_begins_writes_nothing(make_inputs: MakeInputs) -> None:
    inputs = make_inputs()
    assert list(train_trial(inputs, StoppedWorker(at=0))) == []
    assert list(inputs.folder.path.iterdir()) == []


def test_restarts_are_counted(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="feature_extraction", epochs=1)
    list(train_trial(inputs, StoppedWorker(at=1)))
    first = json.loads(inputs.folder.progress.read_text())
    list(train_trial(inputs, LocalWorker()))
    second = json.loads(inputs.folder.progress.read_text())
    assert (first["state"], first["num_restarts"]) == ("stopped", 0)
    assert (second["state"], second["num_restarts"]) == ("done", 1)
    assert first["started_at"] == second["started_at"]
