"""Random initialisation from a seed: torchvision's rules (EfficientNet's head excepted), from generators of our own.

The global generator is neither read nor moved, so a network depends on its seed and on nothing that ran before it. The
head's draws depend on the seed alone: every strategy of an architecture begins with the same head.

Source: torchvision 0.29, `__init__` of ResNet, VGG, DenseNet, EfficientNet and ConvNeXt; torch 2.15,
`nn.Linear.reset_parameters`.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock

from transferlib.models.backbones import HEAD, Backbone, ConvolutionFill, LinearFill, get_backbone
from transferlib.models.stages import stage_modules


def seeded_generator(purpose: str, seed: int) -> torch.Generator:
    """Return a CPU generator whose draws depend on the purpose and the seed alone.

    Args:
        purpose: What is drawn, so that two purposes of one seed draw apart.
        seed: Any integer.
    """
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


@torch.no_grad()
def initialise_head(model: nn.Module, architecture: str, seed: int) -> None:
    """Fill the head in place, as torchvision fills it in a new network of this kind; but for EfficientNet's.

    torchvision spreads EfficientNet's by the number of classes, which is too far where they are few. Ours is spread by
    the number of features, as torch spreads a Linear, around a bias of 0.

    Args:
        model: A torchvision model with real (not meta) head tensors.
        architecture: Its name.
        seed: The trial's seed.
    """
    (head,) = stage_modules(model, architecture)[HEAD]
    assert isinstance(head, nn.Linear)
    _fill_linear(head, get_backbone(architecture).linears, seeded_generator("head", seed))


@torch.no_grad()
def initialise_backbone(model: nn.Module, architecture: str, seed: int) -> None:
    """Fill everything but the head in place, as torchvision fills a new network of this kind.

    Args:
        model: A torchvision model with real (not meta) tensors of any content.
        architecture: Its name.
        seed: The trial's seed.
    """
    generator = seeded_generator("backbone", seed)
    backbone, stages = get_backbone(architecture), stage_modules(model, architecture)
    for layer in [layer for stage in stages if stage != HEAD for module in stages[stage] for layer in module.modules()]:
        _fill(layer, backbone, generator)


def _fill(layer: nn.Module, backbone: Backbone, generator: torch.Generator) -> None:
    if isinstance(layer, nn.Conv2d):
        _fill_convolution(layer, backbone.convolutions, generator)
    elif isinstance(layer, nn.BatchNorm2d | nn.LayerNorm):
        layer.reset_parameters()  # draws nothing: scale 1, shift 0, and fresh running statistics
    elif isinstance(layer, nn.Linear):
        _fill_linear(layer, backbone.linears, generator)
    elif isinstance(layer, CNBlock):
        layer.layer_scale.fill_(backbone.layer_scale)


def _fill_convolution(layer: nn.Conv2d, rule: ConvolutionFill, generator: torch.Generator) -> None:
    if rule == "truncated_normal":
        _fill_truncated(layer.weight, generator)
    else:
        nn.init.kaiming_normal_(layer.weight, mode=rule, nonlinearity="relu", generator=generator)
    if layer.bias is not None:
        layer.bias.zero_()


def _fill_linear(layer: nn.Linear, rule: LinearFill, generator: torch.Generator) -> None:
    match rule:
        case "torch" | "torch_without_bias":
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        case "normal":
            layer.weight.normal_(0.0, 0.01, generator=generator)
        case "truncated_normal":
            _fill_truncated(layer.weight, generator)
    if rule == "torch":
        bound = 1 / math.sqrt(layer.in_features)
        layer.bias.uniform_(-bound, bound, generator=generator)
    else:
        layer.bias.zero_()


def _fill_truncated(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.trunc_normal_(weight, std=0.02, generator=generator)
