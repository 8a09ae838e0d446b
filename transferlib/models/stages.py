"""Stages: the order of a network's parts from input to head, and which modules and state-dict keys each one holds.

ResNet: `stem` (first convolution and its BatchNorm), `layer1` to `layer4`, `head` (`fc`). VGG: `block1` to `block5`
(the convolutions up to and with each pooling), `fully_connected` (fc6 and fc7 with the Dropout behind each), `head`
(`classifier.6`). The head is the last Linear only. Both of VGG's Dropouts belong to `fully_connected`, also the one
between fc7 and the head: where fc6 and fc7 are frozen, what the head sees of an image is then the same each time.

Loads no torch.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from transferlib.errors import SpecError, unknown_name
from transferlib.names import ARCHITECTURES, RESNETS, VGGS

if TYPE_CHECKING:
    from torch import nn

HEAD = "head"
_RESNET_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", HEAD)
_VGG_STAGES = ("block1", "block2", "block3", "block4", "block5", "fully_connected", HEAD)
_NUM_VGG_CLASSIFIER_MODULES_BEFORE_HEAD = 6


def check_architecture(architecture: str) -> None:
    """Refuse a name that is not one of ours.

    Raises:
        SpecError: It is not; the text has the nearest name and all of them.
    """
    if architecture not in ARCHITECTURES:
        raise SpecError(unknown_name("architecture", architecture, ARCHITECTURES))


def stage_names(architecture: str) -> tuple[str, ...]:
    """Return the stages in order, input first, `head` last.

    Args:
        architecture: torchvision's name.
    """
    check_architecture(architecture)
    return _VGG_STAGES if architecture in VGGS else _RESNET_STAGES


def batchnorm_stages(architecture: str) -> tuple[str, ...]:
    """Return the stages that hold BatchNorm, input first; none of a VGG without it.

    Args:
        architecture: torchvision's name.
    """
    stages = stage_names(architecture)
    if architecture in RESNETS:
        return stages[:-1]
    return stages[:-2] if architecture.endswith("_bn") else ()


def head_name(architecture: str) -> str:
    """Return the head's module name: the prefix of its state-dict keys, without the dot."""
    check_architecture(architecture)
    return "fc" if architecture in RESNETS else "classifier.6"


def is_head_key(key: str, architecture: str) -> bool:
    """Return whether a state-dict key belongs to the head."""
    return key.startswith(f"{head_name(architecture)}.")


def stage_modules(model: nn.Module, architecture: str) -> dict[str, list[nn.Module]]:
    """Return the modules of each stage in the order they run; every layer of the model is in exactly one stage.

    Run one after the other, with a flatten(1) before the first Linear, they are the model's forward pass.

    Args:
        model: A plain torchvision model, not wrapped.
        architecture: Its name.
    """
    children = dict(model.named_children())
    if architecture in VGGS:
        return _vgg_modules(children)
    check_architecture(architecture)
    stages = {name: [children[name]] for name in _RESNET_STAGES[1:-1]}
    stages["layer4"].append(children["avgpool"])
    stem = [children[name] for name in ("conv1", "bn1", "relu", "maxpool")]
    return {"stem": stem, **stages, HEAD: [children["fc"]]}


def _vgg_modules(children: dict[str, nn.Module]) -> dict[str, list[nn.Module]]:
    stages: dict[str, list[nn.Module]] = {name: [] for name in _VGG_STAGES}
    block = 1
    for layer in children["features"].children():
        stages[f"block{block}"].append(layer)
        block += type(layer).__name__ == "MaxPool2d"
    stages["block5"].append(children["avgpool"])
    classifier = list(children["classifier"].children())
    stages["fully_connected"] = classifier[:_NUM_VGG_CLASSIFIER_MODULES_BEFORE_HEAD]
    stages[HEAD] = classifier[_NUM_VGG_CLASSIFIER_MODULES_BEFORE_HEAD:]
    return stages


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
    names = {id(module): name for name, module in model.named_modules()}
    return {
        stage: [f"{names[id(module)]}.{key}" for module in modules for key in module.state_dict()]
        for stage, modules in stage_modules(model, architecture).items()
    }
