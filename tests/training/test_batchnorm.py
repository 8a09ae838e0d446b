"""BatchNorm over the whole step: the same numbers as one worker's, however many share it."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18

from tests.training.small_networks import CLASSES, NETWORKS, largest_difference, train_steps
from tests.training.threads import ThreadWorker, on_threads
from transferlib.data.folds import Folds
from transferlib.data.images import ImageTable, image_keys
from transferlib.data.schedule import Schedule
from transferlib.models.backbones import stage_names
from transferlib.models.stages import empty_model
from transferlib.models.zoo import build_model
from transferlib.spec import StrategySpec
from transferlib.strategies import get_strategy
from transferlib.strategies.freezing import apply_strategy
from transferlib.training.batchnorm import StepBatchNorm2d, synchronise_batchnorm
from transferlib.training.worker import LocalWorker

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Compute each rank in its own thread alone; `process_settings` gives them back."""
    torch.set_num_threads(1)


def layer(dtype: torch.dtype) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(5, dtype=dtype)
    with torch.no_grad():
        for number, tensor in enumerate((made.weight, made.bias, made.running_mean, made.running_var)):
            assert tensor is not None
            tensor.copy_(torch.linspace(0.5, 1.5, 5).roll(number))
    return made


def images(num: int = 6) -> Tensor:
    return torch.randn(num, 5, 4, 3, generator=torch.Generator().manual_seed(num), dtype=torch.float64) * 3 + 10


def alone(tensor: Tensor) -> Tensor:
    return tensor


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("parameters", "values", "digits"),
    [
        (torch.float64, torch.float64, 1e-14),
        (torch.float32, torch.float32, 1e-6),
        (torch.float32, torch.bfloat16, 1e-2),
    ],
)
def test_over_one_rank_it_does_what_torchs_layer_does(
    parameters: torch.dtype, values: torch.dtype, digits: float, memory: torch.memory_format
) -> None:
    ours, theirs = StepBatchNorm2d(layer(parameters), alone), layer(parameters)
    gradient = torch.randn(6, 5, 4, 3, generator=torch.Generator().manual_seed(1)).to(values)
    for module in (ours, theirs):
        inputs = images().to(values).contiguous(memory_format=memory).requires_grad_()
        for _ in range(2):
            outputs = module(inputs)
        outputs.backward(gradient.contiguous(memory_format=memory))
        assert outputs.dtype == values
        assert outputs.is_contiguous(memory_format=memory)
        module.seen = {"outputs": outputs.detach(), "gradient": inputs.grad, **module.state_dict()}
        module.seen |= {f"{name}.grad": parameter.grad for name, parameter in module.named_parameters()}
    assert largest_difference(theirs.seen, ours.seen) < digits
    # Statistics are taken in the buffers' own precision, whatever that of the values.
    state = [{key: module.seen[key] for key in theirs.state_dict()} for module in (theirs, ours)]
    assert largest_difference(*state) < min(digits, 1e-6)
    assert ours.running_mean.dtype == parameters


def test_in_evaluation_mode_it_is_torchs_layer_to_the_bit() -> None:
    ours, theirs = StepBatchNorm2d(layer(torch.float32), alone).eval(), layer(torch.float32).eval()
    inputs = images().float()
    assert torch.equal(ours(inputs), theirs(inputs))


def test_its_gradient_is_that_of_its_values() -> None:
    module = StepBatchNorm2d(layer(torch.float64), alone)
    assert torch.autograd.gradcheck(module, (images().requires_grad_(),))


@pytest.mark.parametrize("shares", [(3, 3), (1, 5), (0, 6), (2, 0, 4), (1, 1, 4)])
def test_over_several_ranks_statistics_and_gradients_are_of_the_whole_step(shares: tuple[int, ...]) -> None:
    gradient = torch.randn(6, 5, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = layer(torch.float64)
    inputs = images().requires_grad_()
    outputs = whole(inputs)
    outputs.backward(gradient)

    def run(worker: ThreadWorker) -> tuple[Tensor, Tensor | None, StepBatchNorm2d]:
        module = StepBatchNorm2d(layer(torch.float64), worker.all_reduce)
        mine = images().split(shares)[worker.rank].requires_grad_()
        seen: Tensor = module(mine)
        seen.backward(gradient.split(shares)[worker.rank])
        return seen.detach(), mine.grad, module

    ranks = on_threads(len(shares), run)
    torch.testing.assert_close(torch.cat([rank[0] for rank in ranks]), outputs.detach(), rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.cat([rank[1] for rank in ranks]), inputs.grad, rtol=0, atol=1e-13)
    for name, parameter in whole.named_parameters():
        added = sum(dict(rank[2].named_parameters())[name].grad for rank in ranks)
        torch.testing.assert_close(added, parameter.grad, rtol=0, atol=1e-12)
    for _, _, module in ranks:
        assert largest_difference(whole.state_dict(), dict(module.state_dict())) < 1e-14
        assert largest_difference(dict(ranks[0][2].state_dict()), dict(module.state_dict())) == 0.0


def test_a_single_value_in_the_whole_step_is_refused_on_every_rank() -> None:
    def run(worker: ThreadWorker) -> None:
        module = StepBatchNorm2d(layer(torch.float64), worker.all_reduce)
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            module(torch.ones(1 - worker.rank, 5, 1, 1, dtype=torch.float64))

    on_threads(2, run)


def test_a_single_value_on_each_rank_will_do() -> None:
    def run(worker: ThreadWorker) -> Tensor:
        module = StepBatchNorm2d(layer(torch.float64), worker.all_reduce)
        out: Tensor = module(torch.full((1, 5, 1, 1), float(worker.rank), dtype=torch.float64))
        return out.detach()

    whole = layer(torch.float64)(torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 5, 1, 1))
    torch.testing.assert_close(torch.cat(on_threads(2, run)), whole.detach())


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("network", list(NETWORKS))
def test_several_ranks_train_the_network_that_one_trains(network: str, world_size: int) -> None:
    model, losses = train_steps(LocalWorker(), network)
    ranks = on_threads(world_size, lambda worker: train_steps(worker, network))
    for other, seen in ranks:
        assert seen == pytest.approx(losses, rel=1e-11)
        assert largest_difference(model.state_dict(), other.state_dict()) < 1e-10
        assert largest_difference(ranks[0][0].state_dict(), other.state_dict()) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("fold", [1, 2, 3])
def test_a_folds_uneven_steps_are_one_workers_however_they_are_shared(fold: int) -> None:
    splits = Folds(3, 0).splits(np.arange(41, dtype=np.int8) % 3, fold)
    ids = tuple(f"{number:02d}.png" for number in range(41))
    images = ImageTable(ids, ids, ids, np.zeros(41, np.int64), splits, image_keys(ids), ("a",))
    schedule = Schedule(images, seed=1, global_batch_size=4, eval_batch_size=9, num_epochs=2)

    def shares(world_size: int) -> list[tuple[int, ...]]:
        ranks = [schedule.steps(rank, world_size) for rank in range(world_size)]
        steps = list(zip(*ranks, strict=True))
        return [tuple(len(share.rows) for share in step) for step in steps if step[0].phase == "train"]

    steps = len(shares(1))
    assert len(set(shares(1))) == len({len(set(share)) for share in shares(3)}) == 2
    model, losses = train_steps(LocalWorker(), "resnet", shares=shares(1), steps=steps)
    for world_size in (2, 3):
        ranks = on_threads(
            world_size, lambda worker: train_steps(worker, "resnet", shares=shares(worker.world_size), steps=steps)
        )
        for other, seen in ranks:
            assert seen == pytest.approx(losses, rel=1e-11)
            assert largest_difference(model.state_dict(), other.state_dict()) < 1e-10


def test_without_it_they_train_another_one() -> None:
    """Or the test above would show nothing."""
    model, _ = train_steps(LocalWorker(), "resnet", steps=1)
    (other, _), _ = on_threads(2, lambda worker: train_steps(worker, "resnet", sync_batchnorm=False, steps=1))
    assert largest_difference(model.state_dict(), other.state_dict()) > 1e-3


@pytest.mark.parametrize(
    ("architecture", "strategy"), [("resnet50", "feature_extraction"), ("vgg11_bn", "last_layers")]
)
def test_a_network_that_trains_no_batchnorm_is_left_as_it_is(architecture: str, strategy: str) -> None:
    model = empty_model(architecture, CLASSES)
    apply_strategy(model, architecture, get_strategy(strategy).stage_factors(stage_names(architecture), StrategySpec()))
    before = dict(model.named_modules())
    synchronise_batchnorm(model, alone, CPU)
    assert dict(model.named_modules()) == before


def test_what_trains_no_batchnorm_ends_in_the_same_bits() -> None:
    start = build_model("resnet18", CLASSES, source=None, seed=0)
    factors = get_strategy("feature_extraction").stage_factors(stage_names("resnet18"), StrategySpec())
    inputs, labels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2])

    def run(worker: ThreadWorker, sync_batchnorm: bool) -> dict[str, Tensor]:
        model, mine = copy.deepcopy(start), slice(worker.rank, worker.rank + 1)
        stages = apply_strategy(model, "resnet18", factors)
        optimizer = torch.optim.SGD(stages.parameter_groups(model, 0.1, 0.0))
        parallel = worker.prepare_model(model, sync_batchnorm=sync_batchnorm)
        F.cross_entropy(parallel(inputs[mine]), labels[mine]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return model.state_dict()

    (apart, _), (whole, _) = (on_threads(2, partial(run, sync_batchnorm=sync)) for sync in (False, True))
    assert largest_difference(start.state_dict(), apart) > 0.0
    assert largest_difference(apart, whole) == 0.0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_trained_layers_are_replaced_and_around_the_same_tensors(device: str) -> None:
    """Replaced for a GPU they are torch's own; made here, where no GPU is needed to make them."""
    model = resnet18()
    factors = {"stem": 0.0, "layer1": 0.0, "layer2": 0.0, "layer3": 0.0, "layer4": 1.0, "head": 1.0}
    stages = apply_strategy(model, "resnet18", factors)
    before, frozen = copy.copy(model.state_dict(keep_vars=True)), copy.copy(dict(model.layer3.named_modules()))
    groups = stages.parameter_groups(model, 0.1, 0.0)
    synchronise_batchnorm(model, alone, torch.device(device))
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in after)
    assert dict(model.layer3.named_modules()) == frozen
    assert type(model.bn1) is nn.BatchNorm2d
    expected = StepBatchNorm2d if device == "cpu" else nn.SyncBatchNorm
    replaced = [module for module in model.layer4.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert len(replaced) == 5
    assert all(type(module) is expected and module.training for module in replaced)
    # What stages know of the model still holds.
    assert stages.parameter_groups(model, 0.1, 0.0) == groups
    model.eval()
    inputs = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = resnet18()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(inputs), plain.eval()(inputs))
    stages.set_train_mode(model)
    assert all(module.training for module in replaced)
    assert not model.bn1.training
