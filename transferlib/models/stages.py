"""Stages of a model: which modules, parameters and state-dict keys each one holds, in the order of `backbones.py`."""

from __future__ import annotations

from itertools import chain

from torch import device, nn
from torchvision.models import get_model

from transferlib.models.backbones import get_backbone


def empty_model(architecture: str, num_classes: int) -> nn.Module:
    """Return the network on the meta device: nothing is allocated, nothing is drawn.

    Args:
        architecture: torchvision's name.
        num_classes: Outputs of the head (K).
    """
    get_backbone(architecture)  # refuses what is not ours
    with device("meta"):
        model: nn.Module = get_model(architecture, weights=None, num_classes=num_classes)
    return model


def stage_modules(model: nn.Module, architecture: str) -> dict[str, list[nn.Module]]:
    """Return the modules of each stage in the order they run; every layer of the model is in exactly one stage.

    Run one after the other, with a flatten(1) before the first Linear, they are the model's forward pass (but for
    DenseNet's last ReLU and pooling, which are no modules).

    Args:
        model: A plain torchvision model, not wrapped.
        architecture: Its name.
    """
    stages = get_backbone(architecture).stages
    return {stage: [model.get_submodule(name) for name in names] for stage, names in stages.items()}


def stage_parameters(model: nn.Module, architecture: str) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Return each stage's parameters as (state-dict key, parameter), in the model's order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        stage: [(names[id(p)], p) for p in chain.from_iterable(module.parameters() for module in modules)]
        for stage, modules in stage_modules(model, architecture).items()
    }


def stage_state_keys(model: nn.Module, architecture: str) -> dict[str, list[str]]:
    """Return each stage's state-dict keys, parameters and buffers (BatchNorm's running statistics) alike.

    A checkpoint that holds what training changes keeps the trained stages' keys.
    """
    stages = get_backbone(architecture).stages
    return {
        stage: [f"{name}.{key}" for name in names for key in model.get_submodule(name).state_dict()]
        for stage, names in stages.items()
    }
