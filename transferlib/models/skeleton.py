"""A network without memory: names, shapes and layers on torch's meta device."""

from __future__ import annotations

from torch import device, nn
from torchvision.models import get_model

from transferlib.models.stages import check_architecture


def empty_model(architecture: str, num_classes: int) -> nn.Module:
    """Return the network on the meta device: nothing is allocated, nothing is drawn.

    Args:
        architecture: torchvision's name.
        num_classes: Outputs of the head (K).
    """
    check_architecture(architecture)
    with device("meta"):
        model: nn.Module = get_model(architecture, weights=None, num_classes=num_classes)
    return model
