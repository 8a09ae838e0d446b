"""Read a file of weights: tensors by name, and what its metadata says. No Python object in it is ever run."""

from __future__ import annotations

import pickle
import re
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from transferlib.errors import WeightsError
from transferlib.words import some

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the state dict beside optimizer and epoch (torchvision's own: `model`)."""
_PATH_MODULES = ("pathlib", "pathlib._local")
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DistributedDataParallel, torch.compile and Lightning put before every key."""


_PLAIN_TYPES: list[Any] = [
    Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((PurePosixPath, f"{module}.{name}") for module in _PATH_MODULES for name in ("PosixPath", "PurePosixPath")),
    *((PureWindowsPath, f"{module}.{name}") for module in _PATH_MODULES for name in ("WindowsPath", "PureWindowsPath")),
]
"""What training scripts keep beside the tensors (torchvision's own: its arguments) and what runs nothing when it is
made; a path is read as one that touches no disk."""
_REFUSED_TYPE = re.compile(r"GLOBAL ([\w.]+)")
"""In torch's message."""


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


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping: only has keys())
            return WeightFile(_without_prefix(state), dict(file.metadata() or {}))
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def _read_pth(path: Path) -> Any:
    if _is_torchscript(path):
        raise WeightsError(
            f"{path} is a TorchScript program, not a file of tensors. Load it with torch.jit.load(FILE) where it came "
            "from, and write its tensors with torch.save(model.state_dict(), FILE)."
        )
    try:
        with torch.serialization.safe_globals(_PLAIN_TYPES):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = _REFUSED_TYPE.search(str(error))
        what = f"holds a Python object of type {found[1]}" if found else "is damaged, of another kind, or holds objects"
        raise WeightsError(
            f"{path} is not a plain file of tensors: it {what}; Python objects are not loaded because they can run "
            "code. Write one with torch.save(model.state_dict(), FILE)."
        ) from None
    except Exception as error:  # a damaged file can fail in any layer of the reader: zip, pickle or tensor
        raise _unreadable(path, error) from None


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            names = {name.partition("/")[2] for name in file.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


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
    is_map = isinstance(content, Mapping)
    seen = f"a map of {some(list(map(repr, content)), 5)}" if is_map else f"a {type(content).__name__}"
    raise WeightsError(
        f"{path} holds {seen}, not a state dict, neither directly nor under {', '.join(_WRAPPERS)}. "
        "Write one with torch.save(model.state_dict(), FILE)."
    )


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _without_prefix({key.removeprefix(prefix): tensor for key, tensor in state.items()})
    return state
