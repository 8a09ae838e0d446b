"""What a trial does and leaves behind."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import get_model

from transferlib.data.depth_scale import DepthScale
from transferlib.errors import DataError, TrialError
from transferlib.evaluation.metrics import compute_metrics
from transferlib.evaluation.predictions import Predictions
from transferlib.models.weights import SourceWeights, state_sha256
from transferlib.records import EpochRecord, TrialResult
from transferlib.training.export import load_model
from transferlib.training.loss import TrainingLoss
from transferlib.training.network import gather_logits
from transferlib.training.normaliser import Normaliser
from transferlib.training.signals import StepSignals
from transferlib.training.state import BestEpoch
from transferlib.training.trial import TrialInputs, evaluate_chosen, train_trial
from transferlib.training.worker import LocalWorker

MakeInputs = Callable[..., TrialInputs]


def result_of(inputs: TrialInputs) -> TrialResult:
    result = inputs.folder.read_result()
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("strategy", "trained"),
    [
        ("feature_extraction", {"fc"}),
        ("last_layers", {"layer4", "fc"}),
        ("full", {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}),
    ],
)
def test_frozen_is_frozen(make_inputs: MakeInputs, source: SourceWeights, strategy: str, trained: set[str]) -> None:
    inputs = make_inputs(strategy=strategy, epochs=1)
    list(train_trial(inputs, LocalWorker()))
    best = load_file(inputs.folder.best)
    changed = {key for key, value in source.state.items() if not torch.equal(best[key], value)}
    # Everything of a trained stage moves, BatchNorm's running statistics included; nothing else does.
    assert changed == {key for key in source.state if key.split(".")[0] in trained}
    assert best.keys() - source.state.keys() == {"fc.weight", "fc.bias"}


def test_a_model_knows_the_range_of_its_deep_images(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="feature_extraction", epochs=1)
    scale = DepthScale(whole=(0.0, 4095.0), fraction=(0.0, 0.5))
    inputs = dataclasses.replace(inputs, images=dataclasses.replace(inputs.images, scale=scale))
    list(train_trial(inputs, LocalWorker()))
    with safe_open(inputs.folder.best, framework="pt") as file:
        assert json.loads(file.metadata()["depth_range"]) == {"whole": [0, 4095], "fraction": [0, 0.5]}
    assert load_model(inputs.folder.best, inputs.images.classes).scale == scale
    other = dataclasses.replace(inputs.images, scale=DepthScale(whole=(0.0, 255.0)))
    with pytest.raises(TrialError, match=r"white 4,095 for whole numbers.*the manifest says black is 0, white 255\. "):
        evaluate_chosen(dataclasses.replace(inputs, images=other), LocalWorker())
    evaluate_chosen(inputs, LocalWorker())


def test_a_checkpoint_of_another_range_serves_no_trial(make_inputs: MakeInputs) -> None:
    images = make_inputs().images
    scaled = [dataclasses.replace(images, scale=DepthScale.given((0.0, white))) for white in (255.0, 4095.0)]
    assert len({of.fingerprint for of in (images, *scaled)}) == 3


def test_from_scratch_nothing_is_of_the_source(make_inputs: MakeInputs, source: SourceWeights) -> None:
    inputs = make_inputs(strategy="scratch", epochs=1)
    list(train_trial(inputs, LocalWorker()))
    best = load_file(inputs.folder.best)
    assert not any(torch.equal(best[key], value) for key, value in source.state.items() if value.is_floating_point())


def test_plain_torchvision_loads_the_best_model_and_says_what_the_predictions_say(
    make_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(epochs=2)
    monkeypatch.setattr(BestEpoch, "is_worse_than", lambda best, accuracy, loss: False)  # the best is not the last
    records = list(train_trial(inputs, LocalWorker()))
    with safe_open(inputs.folder.best, framework="pt") as file:
        metadata = file.metadata()
    model = get_model(metadata["architecture"], num_classes=len(json.loads(metadata["classes"]))).eval()
    model.load_state_dict(load_file(inputs.folder.best))
    assert metadata | {"version": ""} == {
        "schema": "1",
        "architecture": "resnet18",
        "classes": '["cat", "dog"]',
        "image_size": "32",
        "resize": "37",
        "mean": "[0.5, 0.4, 0.3]",
        "std": "[0.2, 0.25, 0.3]",
        "source_sha256": inputs.source_sha256,
        "version": "",
        "run": "run",
        "trial": "resnet18-last_layers-s5-c0",
    }
    predictions = Predictions.load(inputs.folder.predictions("val"))
    predictions.check_complete(inputs.images, "val")
    pixels = inputs.stream.renderer.render("val", 0, inputs.images.rows("val"))  # type: ignore[attr-defined]
    images = Normaliser(json.loads(metadata["mean"]), json.loads(metadata["std"]), torch.device("cpu")).images(pixels)
    with torch.no_grad():
        np.testing.assert_allclose(model(images).numpy(), predictions.logits, rtol=1e-4, atol=1e-4)
    best, result = records[0], result_of(inputs)
    metrics = compute_metrics(predictions.labels, predictions.logits)
    assert (result.best_epoch, result.val_accuracy, result.val_loss) == (best.epoch, best.val_accuracy, best.val_loss)
    assert metrics.accuracy == pytest.approx(best.val_accuracy)
    assert metrics.log_loss == pytest.approx(best.val_loss)
    assert result.weights_sha256 == state_sha256(model.state_dict())


@pytest.mark.slow
def test_one_worker_trains_the_same_bits_with_batchnorm_over_the_step_or_apart(make_inputs: MakeInputs) -> None:
    trials = [make_inputs(f"{sync}", epochs=1, sync_batchnorm=sync) for sync in (True, False)]
    for inputs in trials:
        list(train_trial(inputs, LocalWorker()))
    whole, apart = (result_of(inputs) for inputs in trials)
    assert (whole.weights_sha256, whole.val_loss) == (apart.weights_sha256, apart.val_loss)


def test_metrics_are_the_records_row_by_row(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="feature_extraction", epochs=3)
    records = list(train_trial(inputs, LocalWorker()))
    rows = list(csv.DictReader(inputs.folder.metrics.read_text().splitlines()))
    assert list(rows[0]) == [field.name for field in dataclasses.fields(EpochRecord)]
    for row, record in zip(rows, records, strict=True):
        assert float(row["train_loss"]) == record.train_loss
        assert float(row["val_loss"]) == record.val_loss
    assert [record.images for record in records] == [41, 41, 41]
    assert all(0 < r.data_wait_s < r.seconds and 0 < r.train_seconds + r.checkpoint_s < r.seconds for r in records)
    result = result_of(inputs)
    assert result.seconds == pytest.approx(sum(record.seconds for record in records))
    assert result.images_per_s == pytest.approx(123 / sum(record.train_seconds for record in records))
    assert (result.trained_parameters, result.total_parameters) == (1026, 11177538)
    assert result.stage_lrs == {"stem": 0, "layer1": 0, "layer2": 0, "layer3": 0, "layer4": 0, "head": 0.01}
    assert 0 < result.first_step_s < 60


def test_early_stopping_waits_for_patience_epochs_without_a_better_one(make_inputs: MakeInputs) -> None:
    # At a rate that changes no float32, the first epoch stays the best.
    inputs = make_inputs(strategy="feature_extraction", lr=1e-30, epochs=9, early_stopping_patience=2)
    assert [record.is_best for record in train_trial(inputs, LocalWorker())] == [True, False, False]
    result = result_of(inputs)
    assert (result.state, result.epochs, result.best_epoch) == ("done", 3, 0)


def test_patience_0_never_stops_early(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="feature_extraction", lr=1e-30, epochs=4, early_stopping_patience=0)
    assert len(list(train_trial(inputs, LocalWorker()))) == 4


@pytest.mark.parametrize(
    ("clip", "advice"),
    [
        (0.0, "or gradient clipping, which is off (--gradient-clip-norm 5)."),
        (2.5, "or --gradient-clip-norm under 2.5."),
    ],
)
def test_what_to_do_against_a_loss_that_is_not_finite_knows_whether_gradients_are_clipped(
    make_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch, clip: float, advice: str
) -> None:
    sums = TrainingLoss.loss_sum
    monkeypatch.setattr(TrainingLoss, "loss_sum", lambda *given: sums(*given) * math.nan)
    inputs = make_inputs(strategy="feature_extraction", epochs=1, gradient_clip_norm=clip)
    list(train_trial(inputs, LocalWorker()))
    assert result_of(inputs).reason.endswith(advice)


@pytest.mark.parametrize("lag", [0, 1])
def test_a_loss_that_is_not_finite_ends_the_trial_with_epoch_step_and_rate(
    make_inputs: MakeInputs, monkeypatch: pytest.MonkeyPatch, lag: int
) -> None:
    """The same step is named where signals are read one step late, as on a GPU."""
    sums = TrainingLoss.loss_sum
    steps = 0

    def fail_in_second_epoch(loss: TrainingLoss, logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        return sums(loss, logits, labels) * (math.nan if steps == 6 + 3 else 1.0)

    monkeypatch.setattr(TrainingLoss, "loss_sum", fail_in_second_epoch)
    monkeypatch.setattr(StepSignals, "for_device", classmethod(lambda cls, worker: cls(worker, lag)))
    inputs = make_inputs(strategy="feature_extraction", epochs=2, warmup_epochs=0)
    assert len(list(train_trial(inputs, LocalWorker()))) == 1
    result = result_of(inputs)
    rate = 0.01 * 0.5 * (1 + math.cos(math.pi * 8 / 12))
    assert result.state == "failed"
    assert result.error == "NonFiniteLossError"
    assert f"Training loss is nan in epoch 1 at step 2 (both from 0), rate {rate:g}." in result.reason
    assert not inputs.folder.best.exists()
    assert list(train_trial(inputs, LocalWorker())) == []


def test_weights_that_blow_up_in_the_last_step_are_seen_in_validation(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="feature_extraction", lr=1e30, weight_decay=1e10, epochs=1, global_batch_size=41)
    assert list(train_trial(inputs, LocalWorker())) == []
    assert "Validation loss is" in result_of(inputs).reason
    assert "in epoch 0 at step 0" in result_of(inputs).reason


def test_the_chosen_model_predicts_the_whole_test_split(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="feature_extraction", epochs=1)
    list(train_trial(inputs, LocalWorker()))
    predictions = Predictions.load(evaluate_chosen(inputs, LocalWorker()))
    predictions.check_complete(inputs.images, "test")
    assert predictions.source == ("run", inputs.trial.key, "test")
    # The same function on validation gives what training measured: one way to evaluate.
    measured = inputs.folder.predictions("val").read_bytes()
    evaluate_chosen(inputs, LocalWorker(), "val")
    assert inputs.folder.predictions("val").read_bytes() == measured


def test_a_model_that_is_missing_damaged_or_of_other_classes_is_not_evaluated(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="feature_extraction", epochs=1)
    with pytest.raises(TrialError, match=r"best\.safetensors cannot be used"):
        evaluate_chosen(inputs, LocalWorker())
    list(train_trial(inputs, LocalWorker()))
    images = dataclasses.replace(inputs.images, classes=("dog", "cat"))
    with pytest.raises(TrialError, match="knows the classes"):
        evaluate_chosen(dataclasses.replace(inputs, images=images), LocalWorker())
    inputs.folder.best.write_bytes(inputs.folder.best.read_bytes()[:1000])
    with pytest.raises(TrialError, match=r"best\.safetensors is not what training wrote"):
        evaluate_chosen(inputs, LocalWorker())


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 2, 2], [0, 1, 3]])
def test_no_metric_comes_of_rows_that_are_not_the_manifests(rows: list[int]) -> None:
    predicted = [(np.array(rows), torch.zeros(len(rows), 2))]
    with pytest.raises(DataError, match="No metric is computed"):
        gather_logits(LocalWorker(), predicted, np.arange(3), 2)


def test_logits_come_in_row_order_whatever_order_they_were_seen_in() -> None:
    predicted = [(np.array([5, 2]), torch.tensor([[5.0], [2.0]])), (np.array([4]), torch.tensor([[4.0]]))]
    assert gather_logits(LocalWorker(), predicted, np.array([2, 4, 5]), 1).tolist() == [[2], [4], [5]]
