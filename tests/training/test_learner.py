"""One step, and what it does not depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from transferlib.data.batches import Batch, LocalStream
from transferlib.training.learner import Learner, build_learner, dropout_key
from transferlib.training.optimizer import build_optimizer, set_rates
from transferlib.training.trial import TrialInputs
from transferlib.training.worker import LocalWorker

MakeInputs = Callable[..., TrialInputs]


def learner_of(inputs: TrialInputs) -> Learner:
    return build_learner(inputs, LocalWorker(), inputs.schedule())


def batches_of(inputs: TrialInputs, rank: int, world_size: int) -> Iterator[Batch]:
    return inputs.stream.open(inputs.schedule().steps(rank, world_size))


def gradients(learner: Learner) -> list[torch.Tensor]:
    return [p.grad.clone() for p in learner.model.parameters() if p.grad is not None]


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_mean_of_uneven_ranks_gradients_is_the_gradient_of_the_whole_step(
    make_inputs: MakeInputs, world_size: int
) -> None:
    options = {"strategy": "feature_extraction", "global_batch_size": 14, "gradient_clip_norm": 0}
    inputs = make_inputs(**options, class_weights="balanced", label_smoothing=0.1)
    whole = learner_of(inputs)
    batch = next(batches_of(inputs, 0, 1))
    whole.train_step(batch, 0, 1)
    by_rank, sizes = [], set()
    for rank in range(world_size):
        learner = learner_of(inputs)
        share = next(batches_of(inputs, rank, world_size))
        learner.train_step(share, rank, world_size)
        by_rank.append(gradients(learner))
        sizes.add(len(share.labels))
    assert len(sizes) == 2  # 13 images are uneven over 2 and over 3
    for mean, expected in zip(zip(*by_rank, strict=True), gradients(whole), strict=True):
        torch.testing.assert_close(torch.stack(mean).mean(0), expected)


def test_dropout_has_a_key_of_its_own_for_each_step_and_rank(make_inputs: MakeInputs) -> None:
    shares = list(make_inputs().schedule().steps(0, 1))
    train = [share for share in shares if share.phase == "train"]
    keys = {dropout_key(seed, share, rank) for seed in (0, 1) for share in train for rank in (0, 1)}
    assert len(keys) == 2 * len(train) * 2


def test_a_step_draws_from_its_key_and_from_nothing_that_ran_before(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="feature_extraction")
    learner, batch = learner_of(inputs), next(batches_of(inputs, 0, 1))
    torch.manual_seed(123)
    learner.train_step(batch, 1, 2)
    assert torch.initial_seed() == dropout_key(5, batch.share, 1)


def test_gradients_are_clipped_to_the_norm(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="feature_extraction", gradient_clip_norm=1e-3)
    learner = learner_of(inputs)
    learner.train_step(next(batches_of(inputs, 0, 1)), 0, 1)
    norm = torch.cat([gradient.flatten() for gradient in gradients(learner)]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_a_frozen_prefix_records_no_graph(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="last_layers")
    learner = learner_of(inputs)
    seen = {}
    for name in ("layer3", "layer4"):
        learner.model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: output.requires_grad})
        )
    learner.train_step(next(batches_of(inputs, 0, 1)), 0, 1)
    assert seen == {"layer3": False, "layer4": True}


def test_the_network_computes_in_channels_last(make_inputs: MakeInputs) -> None:
    model = learner_of(make_inputs()).model
    assert model.get_submodule("layer1.0.conv1").weight.is_contiguous(memory_format=torch.channels_last)


def test_a_rate_is_a_factor_of_each_groups_peak(make_inputs: MakeInputs) -> None:
    inputs = make_inputs(strategy="full", strategies={"stage_lr_factor": 0.5})
    optimizer = learner_of(inputs).optimizer
    set_rates(optimizer, 0.5)
    rates = {group["stage"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {
        "stem": 0.01 / 64,
        "layer1": 0.01 / 32,
        "layer2": 0.01 / 16,
        "layer3": 0.01 / 8,
        "layer4": 0.01 / 4,
        "head": 0.01 / 2,
    }


def test_sgd_takes_the_hand_computed_steps(make_inputs: MakeInputs) -> None:
    spec = make_inputs(momentum=0.5).job.training
    weight = torch.nn.Parameter(torch.tensor([[1.0]]))
    optimizer = build_optimizer([{"params": [weight], "lr": 0.1, "weight_decay": 0.2}], spec)
    for factor, expected in ((1.0, 1 - 0.1 * 1.2), (0.5, 0.88 - 0.05 * (0.5 * 1.2 + 1 + 0.2 * 0.88))):
        weight.grad = torch.ones_like(weight)
        set_rates(optimizer, factor)
        optimizer.step()
        assert weight.item() == pytest.approx(expected)


def test_what_was_trained_is_all_in_the_tensors(make_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = make_inputs(optimizer="adamw")
    assert isinstance(inputs.stream, LocalStream)
    learner, batches = learner_of(inputs), batches_of(inputs, 0, 1)
    learner.train_step(next(batches), 0, 1)
    saved = {name: {k: v.clone() for k, v in part.items()} for name, part in learner.tensors().items()}
    other = learner_of(inputs)
    other.load_tensors(saved)
    following = next(batches)
    assert learner.train_step(following, 0, 1).item() == other.train_step(following, 0, 1).item()
    for left, right in zip(learner.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(left, right)
