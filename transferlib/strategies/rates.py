"""Learning rates: each arm's base rate, and the candidates around it.

A base rate is the head's peak rate under warm-up and cosine, for steps of 8 to 32 images. It only has to be the right
order of magnitude: three candidates span a factor of 10 around it, and the comparison marks an arm whose choice lies at
the edge.

Where they come from, SGD with momentum 0.9. ResNet: the demo's prototype took 0.1 for frozen features and 0.03 for
everything else, at 8 images a step. VGG without BatchNorm: it was itself trained at 0.01 with 256 images a step
(Simonyan and Zisserman, 2015, section 3.1), where ResNet was at 0.1 (He et al., 2016, section 3.4), so a tenth of
ResNet's rates. VGG with BatchNorm: its classifier is not normalised, so what starts from source weights gets a third of
ResNet's rate.

AdamW's steps do not grow with the gradient, so its rates differ less: 3e-3 for a ResNet's new head alone, 1e-3 for a
new network, 3e-4 where source weights move, and about a third of each for VGG without BatchNorm.
"""

from __future__ import annotations

from transferlib.errors import SpecError, unknown_name
from transferlib.models.stages import check_architecture
from transferlib.names import OPTIMIZERS, RESNETS, STRATEGIES
from transferlib.spec import ComparisonSpec

_SGD = {
    "resnet": {"feature_extraction": 0.1, "last_layers": 0.03, "full": 0.03, "scratch": 0.03},
    "vgg_bn": {"feature_extraction": 0.03, "last_layers": 0.01, "full": 0.01, "scratch": 0.03},
    "vgg": {"feature_extraction": 0.01, "last_layers": 0.003, "full": 0.003, "scratch": 0.003},
}
_ADAMW = {
    "resnet": {"feature_extraction": 3e-3, "last_layers": 3e-4, "full": 3e-4, "scratch": 1e-3},
    "vgg_bn": {"feature_extraction": 1e-3, "last_layers": 3e-4, "full": 3e-4, "scratch": 1e-3},
    "vgg": {"feature_extraction": 1e-3, "last_layers": 1e-4, "full": 1e-4, "scratch": 3e-4},
}
_BASE_LRS = {"sgd": _SGD, "adamw": _ADAMW}


def base_lr(architecture: str, strategy: str, optimizer: str) -> float:
    """Return an arm's base rate: the head's peak learning rate.

    Args:
        architecture: torchvision's name.
        strategy: A strategy's name.
        optimizer: sgd (momentum 0.9) or adamw.

    Raises:
        SpecError: One of them is not known.
    """
    check_architecture(architecture)
    for kind, name, known in (("strategy", strategy, STRATEGIES), ("optimizer", optimizer, OPTIMIZERS)):
        if name not in known:
            raise SpecError(unknown_name(kind, name, known))
    if architecture in RESNETS:
        family = "resnet"
    else:
        family = "vgg_bn" if architecture.endswith("_bn") else "vgg"
    return _BASE_LRS[optimizer][family][strategy]


def lr_candidates(spec: ComparisonSpec, architecture: str, strategy: str, optimizer: str) -> tuple[float, ...]:
    """Return the rates an arm is tried at, ascending; every arm gets the same number.

    Args:
        spec: A count of rates a factor sqrt(10) apart, centred on the base rate (the spec's, or else the arm's own), or
            an explicit list, which every arm gets.
        architecture: torchvision's name.
        strategy: A strategy's name.
        optimizer: sgd or adamw.

    Raises:
        SpecError: A name is not known.
    """
    base = spec.base_lr if spec.base_lr is not None else base_lr(architecture, strategy, optimizer)
    if isinstance(spec.lr_candidates, int):
        middle = (spec.lr_candidates - 1) / 2
        return tuple(base * 10 ** ((index - middle) / 2) for index in range(spec.lr_candidates))
    return tuple(sorted(spec.lr_candidates))
