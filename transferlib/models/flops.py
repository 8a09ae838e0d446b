"""What one image costs in floating-point operations, for the plan's estimate of hours. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping

from transferlib.models.sizes import REFERENCE_IMAGE_SIZE, stage_sizes

FLOPS_PER_MAC = 2
"""A multiply-add counts as two operations; torchvision's `_ops` and most papers print multiply-adds."""


def flops_per_image(architecture: str, image_size: int = REFERENCE_IMAGE_SIZE, *, num_classes: int = 1000) -> float:
    """Return the operations of one image's forward pass (evaluation).

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
