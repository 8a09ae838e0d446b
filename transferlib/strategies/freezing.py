"""Carry out a strategy on a network: what has gradients, what is in train mode, and the optimizer's groups.

Frozen means bit-identical: no gradient, no weight decay, and evaluation mode, so that BatchNorm keeps its running
statistics and Dropout and StochasticDepth pass everything on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from transferlib.models.backbones import stage_names
from transferlib.models.stages import stage_modules, stage_parameters, stage_state_keys
from transferlib.strategies.strategy import FROZEN

_WEIGHT_NDIMS = (2, 4)
"""Axes of the weights of Linears and convolutions; biases, scales and shifts have 1, layer scales 3."""


@dataclass(frozen=True)
class TrainedStages:
    """Know which stages of a network are trained, and at which part of the head's rate."""

    architecture: str
    """torchvision's name."""
    factors: Mapping[str, float]
    """Factor of the head's rate by stage, input to head; 0.0 is frozen."""

    def __post_init__(self) -> None:
        names = stage_names(self.architecture)
        if tuple(self.factors) != names:
            raise ValueError(f"factors are for stages {tuple(self.factors)}; {self.architecture} has {names}")

    @property
    def trained(self) -> tuple[str, ...]:
        """Return the trained stages, input to head."""
        return tuple(stage for stage, factor in self.factors.items() if factor != FROZEN)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Return the frozen stages, input to head."""
        return tuple(stage for stage, factor in self.factors.items() if factor == FROZEN)

    def stage_lrs(self, lr: float) -> dict[str, float]:
        """Return each stage's rate for a rate of the head; 0.0 for frozen ones."""
        return {stage: factor * lr for stage, factor in self.factors.items()}

    def set_train_mode(self, model: nn.Module) -> None:
        """Put the trained stages in train mode and the frozen ones in evaluation mode.

        Call it before each epoch: evaluation leaves all of them in evaluation mode, and `model.train()` none.

        Args:
            model: The plain torchvision model; of one wrapped in DDP, its `module`.
        """
        model.train()
        for stage, modules in stage_modules(model, self.architecture).items():
            for module in modules:
                module.train(stage in self.trained)

    def parameter_groups(self, model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return optimizer groups of the trained parameters, input to head; empty ones are left out.

        Each trained stage gives up to two groups: `<stage>` (weights of convolutions and Linears) and
        `<stage>.no_decay` (biases, normalisation and ConvNeXt's layer scales, which are not decayed).

        Args:
            model: The plain torchvision model.
            lr: The head's rate.
            weight_decay: Of the decayed groups.

        Returns:
            Groups with `params`, `name`, `stage`, `lr` and `weight_decay`.

        Source: Goyal et al., Accurate, Large Minibatch SGD (2017), section 5.1 (normalisation); He et al., Bag of
        Tricks for Image Classification (2019), section 3.1 (biases too).
        """
        groups = []
        parameters = stage_parameters(model, self.architecture)
        for stage in self.trained:
            decayed = [p for _, p in parameters[stage] if p.ndim in _WEIGHT_NDIMS]
            others = [p for _, p in parameters[stage] if p.ndim not in _WEIGHT_NDIMS]
            for name, params, decay in ((stage, decayed, weight_decay), (f"{stage}.no_decay", others, 0.0)):
                if params:
                    rate = self.factors[stage] * lr
                    groups.append({"params": params, "name": name, "stage": stage, "lr": rate, "weight_decay": decay})
        return groups

    def trained_state_keys(self, model: nn.Module) -> list[str]:
        """Return the state-dict keys that training changes: parameters and buffers of the trained stages."""
        keys = stage_state_keys(model, self.architecture)
        return [key for stage in self.trained for key in keys[stage]]

    def num_trained_parameters(self, model: nn.Module) -> int:
        """Return the number of parameters that training changes."""
        parameters = stage_parameters(model, self.architecture)
        return sum(parameter.numel() for stage in self.trained for _, parameter in parameters[stage])


def apply_strategy(model: nn.Module, architecture: str, factors: Mapping[str, float]) -> TrainedStages:
    """Freeze a network's frozen stages, open its trained ones to gradients, and set each one's mode.

    Args:
        model: The plain torchvision model; before it is wrapped in DDP and before its optimizer is built.
        architecture: Its name.
        factors: A strategy's `stage_factors` for it.
    """
    stages = TrainedStages(architecture, dict(factors))
    for stage, parameters in stage_parameters(model, architecture).items():
        for _, parameter in parameters:
            parameter.requires_grad_(stage in stages.trained)
    stages.set_train_mode(model)
    return stages
