import pytest
import torch
from torch import nn

from transferlib.errors import SpecError
from transferlib.models.backbones import head_name, is_head_key, stage_names
from transferlib.models.sizes import counted
from transferlib.models.stages import empty_model, stage_modules, stage_parameters, stage_state_keys
from transferlib.names import ARCHITECTURES, BEYOND_VGG_AND_RESNET, RESNETS, VGGS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_is_in_exactly_one_stage(architecture: str) -> None:
    model = empty_model(architecture, 7)
    stages = stage_modules(model, architecture)
    assert tuple(stages) == stage_names(architecture)
    staged = [layer for modules in stages.values() for module in modules for layer in module.modules()]
    layers = [id(layer) for layer in staged if not list(layer.children())]
    assert sorted(layers) == sorted(id(layer) for layer in model.modules() if not list(layer.children()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stages_share_out_all_parameters_and_state_in_the_models_order(architecture: str) -> None:
    model = empty_model(architecture, 7)
    parameters = [pair for pairs in stage_parameters(model, architecture).values() for pair in pairs]
    assert [name for name, _ in parameters] == [name for name, _ in model.named_parameters()]
    assert all(parameter is model.get_parameter(name) for name, parameter in parameters)
    keys = [key for keys in stage_state_keys(model, architecture).values() for key in keys]
    assert keys == list(model.state_dict())


@pytest.mark.parametrize("architecture", ["resnet18", "vgg11_bn", *BEYOND_VGG_AND_RESNET])
def test_stages_run_in_order_are_the_models_forward_pass(architecture: str) -> None:
    model = empty_model(architecture, 5).to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.ndim < 2:  # scales, shifts, running statistics: a variance may not be 0 or less
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5)
    images = torch.rand(2, 3, 64, 64, generator=generator)
    x = images
    with torch.no_grad():
        for modules in stage_modules(model, architecture).values():
            for module in modules:
                if architecture == "densenet121" and isinstance(module, nn.Linear):
                    x = x.relu().mean((2, 3))
                x = module(x.flatten(1) if isinstance(module, nn.Linear) else x)
        whole = model(images)
        assert whole.isfinite().all()
        assert not torch.allclose(whole[0], whole[1], rtol=1e-3)  # what is seen reaches the head
        if architecture == "densenet121":
            torch.testing.assert_close(x, whole)  # a mean of ours in the place of its pooling
        else:
            assert torch.equal(x, whole)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_head_is_the_last_linear_only(architecture: str) -> None:
    model = empty_model(architecture, 7)
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert head_name(architecture) == linears[-1]
    assert stage_state_keys(model, architecture)["head"] == [f"{linears[-1]}.weight", f"{linears[-1]}.bias"]
    assert [key for key in model.state_dict() if is_head_key(key, architecture)] == [
        f"{linears[-1]}.weight",
        f"{linears[-1]}.bias",
    ]


def test_vgg_blocks_end_with_their_pooling_and_fully_connected_has_both_dropouts() -> None:
    stages = stage_modules(empty_model("vgg16", 7), "vgg16")
    assert [type(stages[f"block{i}"][-1]).__name__ for i in range(1, 5)] == ["MaxPool2d"] * 4
    assert [type(m).__name__ for m in stages["block5"][-2:]] == ["MaxPool2d", "AdaptiveAvgPool2d"]
    assert [type(m).__name__ for m in stages["fully_connected"]] == ["Linear", "ReLU", "Dropout"] * 2


def test_stage_order_is_input_to_head() -> None:
    for architecture in RESNETS:
        assert stage_names(architecture) == ("stem", "layer1", "layer2", "layer3", "layer4", "head")
    for architecture in VGGS:
        assert stage_names(architecture)[-3:] == ("block5", "fully_connected", "head")


def test_unknown_architecture_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match="Did you mean 'resnet18'"):
        stage_names("resnet-18")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stages_that_hold_batchnorm_are_known_without_building_them(architecture: str) -> None:
    stages = stage_modules(empty_model(architecture, 7), architecture)
    layers = {stage: [layer for module in modules for layer in module.modules()] for stage, modules in stages.items()}
    holding = (stage for stage in stages if any(isinstance(layer, nn.BatchNorm2d) for layer in layers[stage]))
    assert counted(architecture).batchnorm == tuple(holding)
