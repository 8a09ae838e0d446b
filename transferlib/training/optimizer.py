"""The optimizer over what a strategy trains, its rates at a step, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from transferlib.spec import TrainingSpec

_PEAK_LR = "peak_lr"


def build_optimizer(groups: list[dict[str, Any]], spec: TrainingSpec) -> torch.optim.Optimizer:
    """Return a new optimizer; each group keeps its rate as its peak.

    Args:
        groups: As `strategies.freezing` makes them: parameters, lr and weight_decay each.
        spec: Which optimizer.
    """
    groups = [{**group, _PEAK_LR: group["lr"]} for group in groups]
    # fused: one pass over the weights instead of one an operation; on a CPU that pass is bound by memory.
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=spec.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to a factor of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group[_PEAK_LR] * factor


def trained_parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return the parameters that are trained, in the optimizer's order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the optimizer's state as `parameter/entry` -> tensor.

    Args:
        optimizer: Over parameters of `model`.
        model: Knows the parameters' names.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{entry}": value
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
        if value is not None
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set the optimizer's state to what `optimizer_tensors` returned."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, entry = key.rsplit("/", 1)
        parameter = parameters[name]
        if value.shape == parameter.shape:
            # In the parameter's own memory order: the fused kernels walk both as flat memory.
            restored = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
        else:
            restored = value.to(parameter.device)
        optimizer.state[parameter][entry] = restored
