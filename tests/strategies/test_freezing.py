from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from transferlib.models.backbones import stage_names
from transferlib.models.stages import empty_model, stage_modules, stage_state_keys
from transferlib.models.zoo import build_model
from transferlib.names import ARCHITECTURES, BEYOND_VGG_AND_RESNET, STRATEGIES
from transferlib.spec import StrategySpec
from transferlib.strategies import get_strategy
from transferlib.strategies.freezing import TrainedStages, apply_strategy

TINY_VGG = "vgg11_bn"


pytestmark = pytest.mark.usefixtures("one_thread")


def train_steps(model: nn.Module, stages: TrainedStages, num_steps: int = 2) -> None:
    stages.set_train_mode(model)
    optimizer = torch.optim.SGD(stages.parameter_groups(model, 0.01, weight_decay=0.1), momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        optimizer.zero_grad()
        logits = model(torch.rand(4, 3, 32, 32, generator=generator))
        nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def prepared(architecture: str, strategy: str) -> tuple[nn.Module, TrainedStages]:
    model = build_model(architecture, 3, source=None, seed=1)
    factors = get_strategy(strategy).stage_factors(stage_names(architecture), StrategySpec())
    return model, apply_strategy(model, architecture, factors)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frozen_stages_are_bit_identical_after_training_and_trained_ones_all_move(strategy: str) -> None:
    model, stages = prepared("resnet18", strategy)
    before = snapshot(model)
    model.train()  # as after an evaluation that forgot the frozen stages: set_train_mode must put it right
    train_steps(model, stages)
    after = model.state_dict()
    trained = set(stages.trained_state_keys(model))
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]) == (key not in trained), key


@pytest.mark.parametrize("architecture", BEYOND_VGG_AND_RESNET)
def test_beyond_vgg_and_resnet_frozen_is_frozen_too(architecture: str) -> None:
    model, stages = prepared(architecture, "last_layers")
    with torch.no_grad():
        for scale in (p for name, p in model.named_parameters() if name.endswith("layer_scale")):
            scale.fill_(0.1)  # under a new network's 1e-6, a step moves what it scales by less than a last digit
    before = snapshot(model)
    model.train()
    train_steps(model, stages)
    after, trained = model.state_dict(), set(stages.trained_state_keys(model))
    assert 0 < len(trained) < len(before)
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]) == (key not in trained), key
    assert all((parameter.grad is not None) == (name in trained) for name, parameter in model.named_parameters())
    for stage, modules in stage_modules(model, architecture).items():
        for module in (m for outer in modules for m in outer.modules()):
            assert module.training == (stage in stages.trained), (stage, module)


@pytest.mark.parametrize("architecture", BEYOND_VGG_AND_RESNET)
def test_beyond_vgg_and_resnet_frozen_features_are_the_same_each_time(architecture: str) -> None:
    model, stages = prepared(architecture, "feature_extraction")
    before = snapshot(model)
    stages.set_train_mode(model)
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rates_fall_from_head_to_input(architecture: str) -> None:
    factors = get_strategy("full").stage_factors(stage_names(architecture), StrategySpec())
    rates = list(TrainedStages(architecture, factors).stage_lrs(0.1).values())
    assert rates[-1] == 0.1
    assert all(0 < nearer < further for nearer, further in pairwise(rates))


def test_frozen_batchnorm_keeps_running_stats_and_trained_batchnorm_moves_them() -> None:
    model, stages = prepared("resnet18", "last_layers")
    before = snapshot(model)
    train_steps(model, stages)
    after = model.state_dict()
    for key in (k for k in before if "running" in k or "num_batches" in k):
        assert torch.equal(before[key], after[key]) == (not key.startswith("layer4")), key


def test_frozen_fully_connected_has_no_dropout_so_features_are_the_same_each_time() -> None:
    model, stages = prepared(TINY_VGG, "feature_extraction")
    stages.set_train_mode(model)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [module.training for module in dropouts] == [False, False]
    before = {key: model.state_dict()[key].clone() for key in ("features.1.running_mean", "classifier.3.weight")}
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in before.items())
    apply_strategy(model, TINY_VGG, {**stages.factors, "fully_connected": 1.0})
    assert [module.training for module in dropouts] == [True, True]


def test_mode_follows_the_strategy_whatever_it_was_before() -> None:
    model, stages = prepared("resnet18", "last_layers")
    for was_training in (True, False):
        model.train(was_training)
        stages.set_train_mode(model)
        for stage, modules in stage_modules(model, "resnet18").items():
            for module in (m for outer in modules for m in outer.modules()):
                assert module.training == (stage in ("layer4", "head")), (stage, module)


def test_gradients_are_open_for_trained_stages_only() -> None:
    model, stages = prepared("resnet18", "last_layers")
    train_steps(model, stages, num_steps=1)
    open_names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in open_names} == {"layer4", "fc"}
    assert all((p.grad is not None) == (name in open_names) for name, p in model.named_parameters())


def test_another_strategy_opens_again_what_the_first_froze() -> None:
    model, _ = prepared("resnet18", "feature_extraction")
    factors = get_strategy("full").stage_factors(stage_names("resnet18"), StrategySpec())
    stages = apply_strategy(model, "resnet18", factors)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert stages.frozen == ()


@pytest.mark.parametrize("architecture", ["resnet18", TINY_VGG, "vgg11", *BEYOND_VGG_AND_RESNET])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_groups_hold_each_trained_parameter_once_and_none_that_is_frozen(architecture: str, strategy: str) -> None:
    model, stages = prepared_on_meta(architecture, strategy)
    groups = stages.parameter_groups(model, 0.1, weight_decay=1e-4)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert all(group["params"] for group in groups)
    assert sum(p.numel() for g in groups for p in g["params"]) == stages.num_trained_parameters(model)


def prepared_on_meta(architecture: str, strategy: str) -> tuple[nn.Module, TrainedStages]:
    model = empty_model(architecture, 3)
    factors = get_strategy(strategy).stage_factors(stage_names(architecture), StrategySpec())
    return model, apply_strategy(model, architecture, factors)


def test_groups_carry_their_stages_rate_and_decay_weights_only() -> None:
    model, stages = prepared_on_meta("resnet18", "full")
    groups = {group["name"]: group for group in stages.parameter_groups(model, 0.1, weight_decay=1e-4)}
    assert list(groups)[:2] == ["stem", "stem.no_decay"]
    assert list(groups)[-2:] == ["head", "head.no_decay"]
    assert groups["head"]["lr"] == 0.1
    assert groups["layer4"]["lr"] == groups["layer4.no_decay"]["lr"] == pytest.approx(0.04)
    assert groups["stem"]["lr"] == pytest.approx(0.1 * 0.4**5)
    for name, group in groups.items():
        assert group["stage"] == name.removesuffix(".no_decay")
        assert group["weight_decay"] == (0.0 if name.endswith(".no_decay") else 1e-4)
        assert {parameter.ndim for parameter in group["params"]} <= ({1} if name.endswith(".no_decay") else {2, 4})
    assert stages.stage_lrs(0.1)["layer4"] == pytest.approx(0.04)


def test_convnexts_layer_scales_and_norms_are_not_decayed() -> None:
    model, stages = prepared_on_meta("convnext_tiny", "full")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = stages.parameter_groups(model, 0.1, weight_decay=1e-4)
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {
        f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def test_frozen_stages_have_rate_zero_and_no_state_to_save() -> None:
    model, stages = prepared_on_meta("resnet18", "feature_extraction")
    assert stages.stage_lrs(0.1) == {**dict.fromkeys(stage_names("resnet18"), 0.0), "head": 0.1}
    assert stages.trained_state_keys(model) == stage_state_keys(model, "resnet18")["head"]
    assert stages.trained == ("head",)


def test_factors_for_other_stages_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="vgg16 has"):
        TrainedStages("vgg16", dict.fromkeys(stage_names("resnet18"), 1.0))
