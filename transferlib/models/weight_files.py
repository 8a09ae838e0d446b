"""Read a file of weights: tensors by name, and what its metadata says. No Python object in it is ever run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from transferlib.errors import WeightsError

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the state dict beside optimizer and epoch (torchvision's own: `model`)."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DistributedDataParallel, torch.compile and Lightning put before every key."""


@dataclass(frozen=True)
class WeightFile:
    """Hold a file's tensors, with the wrapping taken off."""

    state: dict[str, Tensor]
    metadata: dict[str, str]
    """safetensors' metadata; empty for a .pth, which has none."""


def read_weight_file(path: Path) -> WeightFile:
    """Read a .safetensors file (by suffix) or a .pth file (any other) into CPU memory.

    Args:
        path: The file. A .pth is loaded with weights_only; its state dict may lie under `state_dict`,
            `model_state_dict` or `model`, and all its keys may begin with `module.`, `_orig_mod.` or `model.`.

    Raises:
        WeightsError: It cannot be read, is not such a file, or holds no state dict.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return WeightFile(_without_prefix(_state_dict_in(_read_pth(path), path)), {})


def read_metadata(path: Path) -> dict[str, str]:
    """Return a .safetensors file's metadata without reading its tensors.

    Raises:
        WeightsError: It cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping: only has keys())
            return WeightFile(_without_prefix(state), dict(file.metadata() or {}))
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def _read_pth(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path} is not a plain file of tensors: it is damaged, of another kind, or holds Python objects, which "
            "are not loaded because they can run code. Write one with torch.save(model.state_dict(), FILE)."
        ) from None
    except Exception as error:  # a damaged file can fail in any layer of the reader: zip, pickle or tensor
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> WeightsError:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return WeightsError(
        f"{path} cannot be read as weights: {first_line[:200]}. It may be cut short or damaged; fetch or write it anew."
    )


def _state_dict_in(content: Any, path: Path) -> dict[str, Tensor]:
    for key in ("", *_WRAPPERS):
        candidate = content if not key else content.get(key) if isinstance(content, Mapping) else None
        if isinstance(candidate, Mapping) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            return {str(name): tensor for name, tensor in candidate.items()}
    seen = f"a map of {_shortened(list(content))}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise WeightsError(
        f"{path} holds {seen}, not a state dict, neither directly nor under {', '.join(_WRAPPERS)}. "
        "Write one with torch.save(model.state_dict(), FILE)."
    )


def _shortened(keys: list[Any]) -> str:
    return ", ".join(map(repr, keys[:5])) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _without_prefix({key.removeprefix(prefix): tensor for key, tensor in state.items()})
    return state
