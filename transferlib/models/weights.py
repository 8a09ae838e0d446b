"""Source weights: a backbone's tensors, where they come from, and the statistics their images were normalised with.

Random weights never stand in for weights that cannot be had.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from transferlib.errors import WeightsError
from transferlib.models.downloads import TorchvisionWeights, fetch
from transferlib.models.fingerprint import state_sha256
from transferlib.models.matching import match_backbone
from transferlib.models.remote_weights import fetch_weights
from transferlib.models.run_weights import find_run_model
from transferlib.models.weight_files import read_weight_file
from transferlib.models.weight_names import resolve_weights

__all__ = ["DEFAULT_MEAN", "DEFAULT_STD", "RGB", "SourceWeights", "load_source_weights", "state_sha256"]

RGB = tuple[float, float, float]
DEFAULT_MEAN: RGB = (0.485, 0.456, 0.406)
"""ImageNet's channel means on a scale of 0 to 1. Source: torchvision.transforms._presets.ImageClassification."""
DEFAULT_STD: RGB = (0.229, 0.224, 0.225)
"""ImageNet's channel standard deviations on a scale of 0 to 1. Source: as the means."""


@dataclass(frozen=True)
class SourceWeights:
    """Hold what a transfer starts from; read-only by agreement: `build_model` copies."""

    state: dict[str, Tensor] = field(repr=False)
    """The whole network without its head, by torchvision's names; float32 and int64, on the CPU."""
    sha256: str
    """Of `state` (see `state_sha256`)."""
    mean: RGB
    """What images are normalised with: channel means on a scale of 0 to 1."""
    std: RGB
    """Channel standard deviations on a scale of 0 to 1."""
    origin: str
    """Where they come from, fit for a report."""
    classes: tuple[str, ...] = field(default=(), repr=False)
    """What they were trained to tell apart; empty where the file does not say."""
    notes: tuple[str, ...] = ()
    """What a user should know about them, one sentence each."""


def load_source_weights(weights: str, architecture: str, cache_dir: Path | None = None) -> SourceWeights | None:
    """Load the weights that a setting names, checked against the network.

    Args:
        weights: As in the spec: torchvision's enum name, a .pth or .safetensors file or the URI of one, a run folder,
            or "none".
        architecture: torchvision's name.
        cache_dir: Where an object is fetched to; None: the default cache folder.

    Returns:
        The weights; None for "none", and for "none" only.

    Raises:
        WeightsError: They cannot be had, do not match the network, are not finite, or lack a part.
        StorageError: The store of a URI cannot be used.
    """
    choice = resolve_weights(weights, architecture)
    match choice.kind:
        case "none":
            return None
        case "torchvision":
            return _from_torchvision(TorchvisionWeights.find(architecture, choice.value))
        case "folder":
            model = find_run_model(Path(choice.value), architecture)
            return _from_file(model.path, architecture, model.origin, model.notes)
        case "file":
            return _from_file(Path(choice.value), architecture, Path(choice.value).name, ())
        case "object":
            return _from_file(fetch_weights(choice.value, cache_dir), architecture, choice.value, ())


def _from_torchvision(weights: TorchvisionWeights) -> SourceWeights:
    path, notes = fetch(weights)
    try:
        state = read_weight_file(path).state
        backbone, more = match_backbone(state, weights.architecture, f"{weights.architecture} {weights.name} ({path})")
    except WeightsError as error:
        raise WeightsError(f"{error}\nIt lies in torch's cache. {weights.ways_out}") from None
    origin = f"torchvision {weights.architecture} {weights.name}"
    mean, std = _rgb(weights.mean, origin), _rgb(weights.std, origin)
    return SourceWeights(backbone, state_sha256(backbone), mean, std, origin, weights.classes, (*notes, *more))


def _from_file(path: Path, architecture: str, origin: str, notes: Sequence[str]) -> SourceWeights:
    file = read_weight_file(path)
    saved_as = file.metadata.get("architecture", architecture)
    if saved_as != architecture:
        raise WeightsError(f"{path} is a {saved_as}, not a {architecture}. Use --arch {saved_as}, or other weights.")
    backbone, more = match_backbone(file.state, architecture, str(path))
    notes = [*notes, *more]
    mean, std = DEFAULT_MEAN, DEFAULT_STD
    if "mean" in file.metadata and "std" in file.metadata:
        mean, std = (_rgb(_json_list(file.metadata[key], key, path), f"{path}: {key}") for key in ("mean", "std"))
    else:
        notes.append(f"{path.name} does not say how its images were normalised; ImageNet's mean and std are used.")
    if not min(std) > 0.0:
        raise WeightsError(f"{path}: std {std} must be above 0 in each channel. Write the file anew.")
    classes = tuple(map(str, _json_list(file.metadata.get("classes", "[]"), "classes", path)))
    return SourceWeights(backbone, state_sha256(backbone), mean, std, origin, classes, tuple(notes))


def _json_list(text: str, key: str, path: Path) -> list[object]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, list):
        raise WeightsError(f"{path}: metadata {key} is {text[:80]!r}; it must be a JSON list. Write the file anew.")
    return value


def _rgb(values: Sequence[object], what: str) -> RGB:
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
    if len(values) != 3 or len(numbers) != 3:
        raise WeightsError(f"{what} is {values!r}; it must be three finite numbers, one a channel.")
    return (numbers[0], numbers[1], numbers[2])
