"""How large each stage of each network is: parameters, multiply-adds, and what a training keeps. Loads no torch.

Source: `counted.json`, which `python -m transferlib.models.counting` writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from transferlib.models.backbones import HEAD, get_backbone

REFERENCE_IMAGE_SIZE = 224
"""Image size that multiply-adds and activations are counted at, pixels."""
FLOPS_PER_MAC = 2
"""A multiply-add counts as two operations; torchvision's `_ops` and most papers print multiply-adds."""
COUNTED = Path(__file__).with_name("counted.json")


@dataclass(frozen=True)
class Counted:
    """Hold what was counted of one network; by stage without the head, whose size depends on the classes."""

    parameters: Mapping[str, int]
    """Weights, biases, and scales and shifts of normalisation; not running statistics."""
    macs: Mapping[str, int]
    """Multiply-adds of one image at the reference size through convolutions and Linears, those that grow with it."""
    fixed_macs: Mapping[str, int]
    """Those that do not grow with the image: of what comes after a pooling to a fixed size."""
    batchnorm: tuple[str, ...]
    """Stages that hold BatchNorm."""
    head_features: int
    """What the head sees (D)."""
    activation_bytes: int
    """What one image at the reference size keeps for a whole backward pass in fp32, to 0.1 MB."""
    min_pixels: int
    """The smallest side of an image that the network can take."""
    single_value_pixels: int
    """The largest side at which a BatchNorm sees one value a channel of each image; 0: none ever does."""


@dataclass(frozen=True)
class StageSize:
    """Give the size of one stage."""

    parameters: int
    """Weights, biases, and scales and shifts of normalisation; not running statistics."""
    macs: int
    """Multiply-adds of one image's forward pass through convolutions and Linears, at the image size asked for."""


def counted(architecture: str) -> Counted:
    """Return what was counted of a network.

    Args:
        architecture: torchvision's name.
    """
    get_backbone(architecture)  # refuses what is not ours
    return _read()[architecture]


@cache
def _read() -> dict[str, Counted]:
    rows = json.loads(COUNTED.read_text(encoding="utf-8"))
    return {name: Counted(**{**row, "batchnorm": tuple(row["batchnorm"])}) for name, row in rows.items()}


def stage_sizes(architecture: str, num_classes: int, image_size: int = REFERENCE_IMAGE_SIZE) -> dict[str, StageSize]:
    """Return the size of each stage, input to head.

    Multiply-adds scale with the image's area (exact at multiples of 32 px), those behind a pooling to a fixed size
    apart.

    Args:
        architecture: torchvision's name.
        num_classes: Outputs of the head (K).
        image_size: Side of the square image, pixels.
    """
    found = counted(architecture)
    area = (image_size / REFERENCE_IMAGE_SIZE) ** 2
    sizes = {
        stage: StageSize(parameters, found.fixed_macs[stage] + round(found.macs[stage] * area))
        for stage, parameters in found.parameters.items()
    }
    features = found.head_features
    return {**sizes, HEAD: StageSize((features + 1) * num_classes, features * num_classes)}


def total_parameters(architecture: str, num_classes: int) -> int:
    """Return the number of parameters of the whole network."""
    return sum(size.parameters for size in stage_sizes(architecture, num_classes).values())


def flops_per_image(architecture: str, image_size: int = REFERENCE_IMAGE_SIZE, *, num_classes: int = 1000) -> float:
    """Return the floating-point operations of one image's forward pass (evaluation).

    Args:
        architecture: torchvision's name.
        image_size: Side of the square image, pixels.
        num_classes: Outputs of the head.
    """
    sizes = stage_sizes(architecture, num_classes, image_size)
    return float(FLOPS_PER_MAC * sum(size.macs for size in sizes.values()))


def training_flops_per_image(
    architecture: str,
    stage_factors: Mapping[str, float],
    image_size: int = REFERENCE_IMAGE_SIZE,
    *,
    num_classes: int = 1000,
) -> float:
    """Return the operations of one image's training step: all stages forward, the trained ones backward.

    A backward pass costs one forward for the weights' gradients and one for the inputs'. It ends at the trained stage
    nearest to the input, which needs no gradient of its input.

    Args:
        architecture: torchvision's name.
        stage_factors: A strategy's factor of the head's rate by stage; 0.0 is frozen.
        image_size: Side of the square image, pixels.
        num_classes: Outputs of the head.
    """
    sizes = stage_sizes(architecture, num_classes, image_size)
    macs = sum(size.macs for size in sizes.values())
    is_reached = False
    for stage, size in sizes.items():
        macs += size.macs * is_reached
        if stage_factors[stage] > 0.0:
            macs += size.macs
            is_reached = True
    return float(FLOPS_PER_MAC * macs)
