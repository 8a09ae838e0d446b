"""Count what each network takes, on the meta device: `python -m transferlib.models.counting` writes `counted.json`.

A test counts again and holds the file to it. No memory is allocated and no weights are read.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, partial

import torch
from torch import Tensor, nn

from transferlib.models.backbones import BACKBONES, HEAD
from transferlib.models.sizes import COUNTED, REFERENCE_IMAGE_SIZE, Counted
from transferlib.models.stages import empty_model, stage_modules, stage_parameters

_ANY_NUM_CLASSES = 1000
_LARGE = 128
"""Pixels at which no network of ours is at its limits."""


def count(architecture: str) -> Counted:
    """Return what a network takes.

    Args:
        architecture: torchvision's name.
    """
    model = empty_model(architecture, _ANY_NUM_CLASSES)
    stages = [stage for stage in stage_modules(model, architecture) if stage != HEAD]
    parameters = stage_parameters(model, architecture)
    once, twice = (_macs(model, architecture, factor * REFERENCE_IMAGE_SIZE) for factor in (1, 2))
    growing = {stage: (twice[stage] - once[stage]) // 3 for stage in stages}  # of four times the area
    (head,) = stage_modules(model, architecture)[HEAD]
    assert isinstance(head, nn.Linear)
    sides, passage = range(1, _LARGE + 1), cache(partial(_passage, model))
    return Counted(
        parameters={stage: sum(parameter.numel() for _, parameter in parameters[stage]) for stage in stages},
        macs=growing,
        fixed_macs={stage: once[stage] - growing[stage] for stage in stages},
        batchnorm=tuple(stage for stage in stages if _layers(model, architecture, nn.BatchNorm2d)[stage]),
        head_features=head.in_features,
        activation_bytes=round(_activation_bytes(model), -5),
        min_pixels=sides[bisect_left(sides, True, key=lambda side: passage(side)[0])],
        single_value_pixels=bisect_left(sides, True, key=lambda side: passage(side)[1] > 1),
    )


def _layers(model: nn.Module, architecture: str, *kinds: type[nn.Module]) -> dict[str, list[nn.Module]]:
    """Return the layers of some kinds, by stage."""
    return {
        stage: [layer for module in modules for layer in module.modules() if isinstance(layer, kinds)]
        for stage, modules in stage_modules(model, architecture).items()
    }


def _images(side: int) -> Tensor:
    return torch.empty(1, 3, side, side, device="meta")


@contextmanager
def _seen(layers: list[nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Collect what each of some layers puts out, in the order they run."""
    found: list[tuple[nn.Module, Tensor]] = []
    handles = [layer.register_forward_hook(lambda at, _, out: found.append((at, out))) for layer in layers]
    yield found
    for handle in handles:
        handle.remove()


@torch.no_grad()
def _macs(model: nn.Module, architecture: str, side: int) -> dict[str, int]:
    """Return the multiply-adds of one image, by stage."""
    layers = _layers(model, architecture, nn.Conv2d, nn.Linear)
    stage_of = {id(layer): stage for stage, of_stage in layers.items() for layer in of_stage}
    macs = dict.fromkeys(layers, 0)
    with _seen([layer for of_stage in layers.values() for layer in of_stage]) as found:
        model.eval()(_images(side))
    for layer, out in found:
        weight = layer.get_parameter("weight")
        macs[stage_of[id(layer)]] += out.numel() * weight[0].numel()
    return macs


def _activation_bytes(model: nn.Module) -> int:
    """Return the bytes of the distinct storages that autograd keeps of one image, weights and buffers left out."""
    known = {tensor.untyped_storage()._cdata for tensor in model.state_dict().values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(_images(REFERENCE_IMAGE_SIZE))
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in known)


@torch.no_grad()
def _passage(model: nn.Module, side: int) -> tuple[bool, float]:
    """Return whether an image of this side goes through, and the fewest values a channel that a BatchNorm sees of it.

    Infinitely many where there is no BatchNorm.
    """
    with _seen([layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]) as found:
        try:
            model.eval()(_images(side))
            is_through = True
        except RuntimeError:  # a pooling or a convolution would put out nothing
            is_through = False
    return is_through, min((out[0, 0].numel() for _, out in found), default=float("inf"))


def render(rows: Mapping[str, Counted]) -> str:
    """Return `counted.json`: an object a network, a line a property."""
    networks = []
    for name, row in rows.items():
        lines = [f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in asdict(row).items()]
        networks.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(networks) + "\n}\n"


if __name__ == "__main__":
    COUNTED.write_text(render({name: count(name) for name in BACKBONES}), encoding="utf-8")
