"""Hold a state dict against a network: hand out its backbone whole, or say all that does not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from transferlib.errors import WeightsError
from transferlib.models.backbones import get_backbone, head_name, is_head_key
from transferlib.models.stages import empty_model
from transferlib.names import ARCHITECTURES

_MOST_KEYS_LISTED = 8
_ANY_NUM_CLASSES = 1000
_COUNTER = ".num_batches_tracked"
IsOfHead = Callable[[str], bool]
"""Says of a name in a state dict whether it is of the head."""


def match_backbone(state: Mapping[str, Tensor], architecture: str, origin: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the backbone's tensors in the network's own order and types, and notes on what was done to them.

    The head may be of any shape and any number of layers, or be left out: a new one is made in any case. What is under
    none of the network's own names is taken for one. Nothing else may be missing, left over or of another shape. Names
    of torchvision's older files are brought up to date. Half and double precision become float32. BatchNorm's counters
    of batches, which files from before 2018 lack, start at 0, as in torch.

    Args:
        state: Tensors by torchvision's names.
        architecture: torchvision's name.
        origin: What to call the weights in messages.

    Raises:
        WeightsError: Keys are missing, unexpected or mis-shaped, or a tensor is not finite; all are listed.

    Source: torch 2.15, `torch.nn.modules.batchnorm._NormBase._load_from_state_dict` for the counters.
    """
    expected = empty_model(architecture, _ANY_NUM_CLASSES).state_dict()
    state = _renamed(state, architecture)
    counters = {key: torch.zeros((), dtype=torch.int64) for key in expected if key.endswith(_COUNTER)}
    given = {**counters, **state}
    tops = {key.partition(".")[0] for key in expected}
    beside = [key for key in state if key.partition(".")[0] not in tops]
    is_of_head = _head_place(expected, architecture)
    has_head = bool(beside) or any(is_of_head(key) for key in state)
    problems = _mismatches(expected, given, is_of_head, beside)
    if problems:
        raise WeightsError(
            f"{origin} does not match {architecture}.{_guess(state, architecture)} Only the head "
            f"({head_name(architecture)}) may differ.\n" + "\n".join(f"  {problem}" for problem in problems)
        )
    backbone = [key for key in expected if not is_of_head(key)]
    converted = {key: given[key].to(expected[key].dtype) for key in backbone}
    _check_finite(converted, origin)
    notes = [] if has_head else [f"{origin} has no head; a new one is made in any case."]
    if beside:
        notes.append(f"{origin}: what is no part of {architecture} is taken for its head: {_listed(beside)}.")
    if types := {str(tensor.dtype).removeprefix("torch.") for tensor in (given[key] for key in backbone)} - {
        "float32",
        "int64",
    }:
        notes.append(f"{origin}: tensors of type {', '.join(sorted(types))} were converted to float32.")
    return {key: tensor.contiguous() for key, tensor in converted.items()}, notes


def _renamed(state: Mapping[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """Return the tensors under the names that torchvision has for them today."""
    renamed = dict(state)
    for pattern, name in get_backbone(architecture).renamed_keys:
        renamed = {re.sub(pattern, name, key): tensor for key, tensor in renamed.items()}
    return renamed


def _head_place(expected: Mapping[str, Tensor], architecture: str) -> IsOfHead:
    """Return what tells a head's names: people put other layers in its place, and more of them.

    Where the module that holds the head holds no other weights, as EfficientNet's `classifier` (a Dropout and a
    Linear), all of it is the head's place; otherwise, as in VGG's and ConvNeXt's, what comes from the head's index on.
    """
    name = head_name(architecture)
    parent, _, first = name.rpartition(".")
    if not parent:
        return lambda key: key.startswith(f"{name}.")
    if not any(key.startswith(f"{parent}.") and not is_head_key(key, architecture) for key in expected):
        return lambda key: key.startswith(f"{parent}.")
    child = re.compile(rf"{re.escape(parent)}\.(\d+)\.")
    return lambda key: (found := child.match(key)) is not None and int(found[1]) >= int(first)


def _mismatches(
    expected: Mapping[str, Tensor], given: Mapping[str, Tensor], is_of_head: IsOfHead, beside: Sequence[str]
) -> list[str]:
    backbone = [key for key in expected if not is_of_head(key)]
    missing = [key for key in backbone if key not in given]
    known = {*expected, *beside}
    unexpected = [key for key in given if key not in known and not is_of_head(key)]
    mis_shaped = [
        f"{key} {_described(given[key])} instead of {_described(expected[key])}"
        for key in backbone
        if key in given and not _fits(given[key], expected[key])
    ]
    named = (
        ("missing", missing),
        ("there instead", beside if missing else ()),
        ("unexpected", unexpected),
        ("of another shape or type", mis_shaped),
    )
    prefix = _prefix(missing, given)
    hint = [f"What is missing is there under {prefix!r}: save the state dict without that prefix."] if prefix else []
    return [*(f"{name} ({len(keys)}): {_listed(keys)}" for name, keys in named if keys), *hint]


def _prefix(missing: Sequence[str], given: Mapping[str, Tensor]) -> str:
    """Return the words before every missing name under which it is there; empty where there are none."""
    found = (key.removesuffix(missing[0]) for key in given if missing and key.endswith(f".{missing[0]}"))
    return next((prefix for prefix in found if all(prefix + key in given for key in missing)), "")


def _fits(given: Tensor, expected: Tensor) -> bool:
    return given.is_floating_point() == expected.is_floating_point() and given.shape == expected.shape


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _guess(state: Mapping[str, Tensor], asked_for: str) -> str:
    for architecture in (name for name in ARCHITECTURES if name != asked_for):
        expected = empty_model(architecture, _ANY_NUM_CLASSES).state_dict()
        is_of_head = _head_place(expected, architecture)
        if _backbone_shapes(_renamed(state, architecture), is_of_head) == _backbone_shapes(expected, is_of_head):
            return f" These are weights of a {architecture}: use --arch {architecture}, or other weights."
    return ""


def _backbone_shapes(state: Mapping[str, Tensor], is_of_head: IsOfHead) -> dict[str, torch.Size]:
    return {key: t.shape for key, t in state.items() if not is_of_head(key) and not key.endswith(_COUNTER)}


def _check_finite(state: Mapping[str, Tensor], origin: str) -> None:
    bad = [key for key, tensor in state.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise WeightsError(
            f"{origin} has values that are not finite (NaN or infinite) in {len(bad)} of its {len(state)} tensors: "
            f"{_listed(bad)}. Weights of a training that diverged, or without a part, cannot serve; give others."
        )


def _listed(keys: Sequence[str]) -> str:
    more = len(keys) - _MOST_KEYS_LISTED
    return ", ".join(keys[:_MOST_KEYS_LISTED]) + (f", and {more} more" if more > 0 else "")
