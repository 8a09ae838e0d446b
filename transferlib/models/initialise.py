"""Random initialisation from a seed: torchvision's rules, drawn from generators of our own.

The global generator is neither read nor moved, so a network depends on its seed and on nothing that ran before it. The
head's draws depend on the seed alone: every strategy of an architecture begins with the same head.

Source: torchvision 0.29, `ResNet.__init__` and `VGG.__init__`; torch 2.15, `nn.Linear.reset_parameters`.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import nn

from transferlib.models.stages import HEAD, stage_modules
from transferlib.names import VGGS


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
    """Fill the head in place, as torchvision fills it in a new network of this kind.

    Args:
        model: A torchvision model with real (not meta) head tensors.
        architecture: Its name.
        seed: The trial's seed.
    """
    (head,) = stage_modules(model, architecture)[HEAD]
    assert isinstance(head, nn.Linear)
    _fill_linear(head, architecture, seeded_generator("head", seed))


@torch.no_grad()
def initialise_backbone(model: nn.Module, architecture: str, seed: int) -> None:
    """Fill everything but the head in place, as torchvision fills a new network of this kind.

    Args:
        model: A torchvision model with real (not meta) tensors of any content.
        architecture: Its name.
        seed: The trial's seed.
    """
    generator = seeded_generator("backbone", seed)
    stages = stage_modules(model, architecture)
    for layer in [layer for stage in stages if stage != HEAD for module in stages[stage] for layer in module.modules()]:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()  # draws nothing: scale 1, shift 0, and fresh running statistics
        elif isinstance(layer, nn.Linear):
            _fill_linear(layer, architecture, generator)


def _fill_linear(layer: nn.Linear, architecture: str, generator: torch.Generator) -> None:
    if architecture in VGGS:
        layer.weight.normal_(0.0, 0.01, generator=generator)
        layer.bias.zero_()
        return
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(layer.in_features)
    layer.bias.uniform_(-bound, bound, generator=generator)
