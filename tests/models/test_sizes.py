import subprocess
import sys

import pytest
from torch import empty, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights

from transferlib.models.backbones import stage_names
from transferlib.models.sizes import counted, flops_per_image, stage_sizes, total_parameters, training_flops_per_image
from transferlib.models.stages import empty_model, stage_modules, stage_parameters
from transferlib.names import ARCHITECTURES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_table_of_parameters_is_what_torchvision_has(architecture: str) -> None:
    model = empty_model(architecture, 7)
    sizes = stage_sizes(architecture, 7)
    parameters = {
        stage: sum(parameter.numel() for _, parameter in pairs)
        for stage, pairs in stage_parameters(model, architecture).items()
    }
    assert {stage: size.parameters for stage, size in sizes.items()} == parameters
    assert total_parameters(architecture, 7) == sum(parameters.values())
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert counted(architecture).head_features == last.in_features


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_table_of_flops_adds_up_to_torchvisions_own_figure(architecture: str) -> None:
    weights = get_model_weights(architecture)["IMAGENET1K_V1"]
    (crop,) = weights.transforms().crop_size
    assert flops_per_image(architecture, crop) / 2e9 == pytest.approx(weights.meta["_ops"], abs=6e-4)
    assert total_parameters(architecture, 1000) == weights.meta["num_params"]


@pytest.mark.parametrize("architecture", ["resnet50", "resnext50_32x4d", "vgg13_bn"])
@pytest.mark.parametrize("image_size", [64, 224])
def test_flops_by_stage_are_what_torch_counts(architecture: str, image_size: int) -> None:
    model = empty_model(architecture, 7).eval()
    sizes = stage_sizes(architecture, 7, image_size)
    x = empty(1, 3, image_size, image_size, device="meta")
    for stage, modules in stage_modules(model, architecture).items():
        with FlopCounterMode(display=False) as counter:
            for module in modules:
                x = module(x.flatten(1) if isinstance(module, nn.Linear) else x)
        assert 2 * sizes[stage].macs == counter.get_total_flops()


def test_training_costs_three_forward_passes_at_most_and_frozen_stages_one() -> None:
    stages = stage_names("resnet18")
    forward = flops_per_image("resnet18", 64)
    sizes = stage_sizes("resnet18", 1000, 64)
    frozen = dict.fromkeys(stages, 0.0)
    assert training_flops_per_image("resnet18", frozen, 64) == forward
    assert training_flops_per_image("resnet18", {**frozen, "head": 1.0}, 64) == forward + 2 * sizes["head"].macs
    everything = training_flops_per_image("resnet18", dict.fromkeys(stages, 1.0), 64)
    assert everything == 3 * forward - 2 * sizes["stem"].macs  # the input needs no gradient
    last = training_flops_per_image("resnet18", {**frozen, "layer4": 1.0, "head": 1.0}, 64)
    assert last == forward + 2 * sizes["layer4"].macs + 4 * sizes["head"].macs


def test_sizes_flops_names_and_tables_load_no_torch() -> None:
    code = (
        "import sys, transferlib.models.backbones, transferlib.models.sizes, transferlib.models.weight_names, "
        "transferlib.models.run_weights, transferlib.strategies.table; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
