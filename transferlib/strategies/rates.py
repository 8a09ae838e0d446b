"""Learning rates: each arm's base rate, and the candidates around it. The base rates are the backbones' own."""

from __future__ import annotations

from transferlib.errors import SpecError, unknown_name
from transferlib.models.backbones import get_backbone
from transferlib.names import OPTIMIZERS, STRATEGIES
from transferlib.spec import ComparisonSpec


def base_lr(architecture: str, strategy: str, optimizer: str) -> float:
    """Return an arm's base rate: the head's peak learning rate.

    Args:
        architecture: torchvision's name.
        strategy: A strategy's name.
        optimizer: sgd (momentum 0.9) or adamw.

    Raises:
        SpecError: One of them is not known.
    """
    base_lrs = get_backbone(architecture).base_lrs
    for kind, name, known in (("strategy", strategy, STRATEGIES), ("optimizer", optimizer, OPTIMIZERS)):
        if name not in known:
            raise SpecError(unknown_name(kind, name, known))
    return base_lrs[optimizer][strategy]


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
