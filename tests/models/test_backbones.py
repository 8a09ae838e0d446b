from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from transferlib import names
from transferlib.models.backbones import BACKBONES, HEAD, get_backbone
from transferlib.models.counting import count, render
from transferlib.models.sizes import COUNTED, counted
from transferlib.models.stages import empty_model, stage_modules


def test_there_is_an_entry_for_each_name_that_is_offered() -> None:
    assert tuple(BACKBONES) == names.ARCHITECTURES
    assert len(set(names.ARCHITECTURES)) == len(names.ARCHITECTURES)


@pytest.mark.parametrize("architecture", names.ARCHITECTURES)
def test_entry_has_one_head_and_a_rate_for_each_arm(architecture: str) -> None:
    backbone = get_backbone(architecture)
    assert list(backbone.stages)[-1] == HEAD
    assert len(backbone.stages[HEAD]) == 1
    assert all(backbone.stages.values())
    assert {(o, s) for o in backbone.base_lrs for s in backbone.base_lrs[o]} == {
        (optimizer, strategy) for optimizer in names.OPTIMIZERS for strategy in names.STRATEGIES
    }


@pytest.mark.parametrize("architecture", ["resnet18", "vgg11_bn", *names.BEYOND_VGG_AND_RESNET])
def test_what_the_file_says_is_what_is_counted(architecture: str) -> None:
    assert count(architecture) == counted(architecture), "run: python -m transferlib.models.counting"


def test_file_has_each_network_once_and_nothing_else() -> None:
    expected = render({architecture: counted(architecture) for architecture in BACKBONES})
    assert Path(COUNTED).read_text(encoding="utf-8") == expected, "run: python -m transferlib.models.counting"


@pytest.mark.parametrize("architecture", ["vgg11", "densenet121", "convnext_tiny"])
def test_images_of_the_smallest_side_go_through_and_smaller_ones_do_not(architecture: str) -> None:
    model, side = empty_model(architecture, 3).to_empty(device="cpu").eval(), counted(architecture).min_pixels
    with torch.no_grad():
        assert model(torch.rand(1, 3, side, side)).shape == (1, 3)
        with pytest.raises(RuntimeError):
            model(torch.rand(1, 3, side - 1, side - 1))


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121", "efficientnet_v2_s"])
def test_batchnorm_of_a_single_image_fails_up_to_the_side_that_is_counted(architecture: str) -> None:
    model, side = empty_model(architecture, 3).train(), counted(architecture).single_value_pixels
    with torch.device("meta"):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(torch.empty(1, 3, side, side))
        assert model(torch.empty(1, 3, side + 1, side + 1)).shape == (1, 3)


def test_a_single_image_will_do_for_a_network_without_batchnorm() -> None:
    assert counted("convnext_tiny").batchnorm == ()
    assert counted("convnext_tiny").single_value_pixels == 0
    with torch.no_grad():
        model = empty_model("convnext_tiny", 3).to_empty(device="cpu").train()
        assert model(torch.rand(1, 3, 32, 32)).shape == (1, 3)


def test_what_lies_between_the_blocks_and_the_head_is_of_the_last_stage() -> None:
    def last(architecture: str) -> list[nn.Module]:
        return list(stage_modules(empty_model(architecture, 7), architecture).values())[-2]

    assert [type(module).__name__ for module in last("efficientnet_v2_s")[-2:]] == ["AdaptiveAvgPool2d", "Dropout"]
    assert [type(m).__name__ for m in last("convnext_tiny")[-3:]] == ["AdaptiveAvgPool2d", "LayerNorm2d", "Flatten"]
    assert isinstance(last("densenet121")[-1], nn.BatchNorm2d)


@pytest.mark.parametrize("architecture", ["efficientnet_v2_s", "convnext_tiny"])
def test_stochastic_depth_is_of_the_stage_whose_blocks_it_drops(architecture: str) -> None:
    stages = stage_modules(empty_model(architecture, 7), architecture)
    drops = {
        stage: [layer for module in modules for layer in module.modules() if isinstance(layer, StochasticDepth)]
        for stage, modules in stages.items()
    }
    assert [stage for stage in drops if drops[stage]] == list(stages)[1:-1]
