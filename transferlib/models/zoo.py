"""The zoo: build one of torchvision's networks with a new head, on given source weights or from a seed.

What comes out is torchvision's own module with its own state-dict names, so plain torchvision loads what we train.
"""

from __future__ import annotations

from torch import Tensor, nn

from transferlib.models.backbones import head_name
from transferlib.models.initialise import initialise_backbone, initialise_head
from transferlib.models.stages import empty_model
from transferlib.models.weights import SourceWeights


def build_model(architecture: str, num_classes: int, *, source: SourceWeights | None, seed: int) -> nn.Module:
    """Build the network on the CPU in float32: the source's backbone bit for bit, and a new head from the seed.

    The head is always new, whatever classes the source was trained on. The model owns its tensors; training it leaves
    the source as it was.

    Args:
        architecture: torchvision's name.
        num_classes: Outputs of the head (K).
        source: Weights of the backbone; None (the strategy `scratch`, or weights "none"): all from the seed.
        seed: Seed of what is new.
    """
    # Built without memory first: torchvision would fill all weights at random (VGG16: 2 s) only to have them replaced.
    model = empty_model(architecture, num_classes)
    if source is None:
        model.to_empty(device="cpu")
        initialise_backbone(model, architecture, seed)
    else:
        _load_backbone(model, architecture, source.state)
    initialise_head(model, architecture, seed)
    return model


def _load_backbone(model: nn.Module, architecture: str, backbone: dict[str, Tensor]) -> None:
    head = model.get_submodule(head_name(architecture)).to_empty(device="cpu")
    state = {key: tensor.clone() for key, tensor in backbone.items()}
    state |= {f"{head_name(architecture)}.{key}": tensor for key, tensor in head.state_dict().items()}
    model.load_state_dict(state, strict=True, assign=True)
