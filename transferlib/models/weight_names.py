"""What a `weights` setting means: torchvision's name, a file, an object, a run folder or none. Loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transferlib.errors import WeightsError
from transferlib.models.stages import check_architecture
from transferlib.storage.uris import is_uri, parse_uri

NONE = "none"
_FILE_SUFFIXES = (".pth", ".pt", ".safetensors")
_V1, _V2 = "IMAGENET1K_V1", "IMAGENET1K_V2"
_WITH_V2 = ("resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2")
_FEATURES_ONLY = "IMAGENET1K_FEATURES"


@dataclass(frozen=True)
class WeightsChoice:
    """Say what kind of thing a `weights` setting names."""

    kind: Literal["none", "torchvision", "file", "folder", "object"]
    value: str
    """torchvision's enum name, an absolute path or an object's URI; empty for none."""


def torch_cache_dir(environ: Mapping[str, str]) -> Path:
    """Return where torch keeps the weights that it has downloaded.

    Args:
        environ: Environment variables.

    Source: torch 2.15, `torch.hub.get_dir`.
    """
    cache = environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub" / "checkpoints"


def torchvision_weight_names(architecture: str) -> tuple[str, ...]:
    """Return the names of torchvision's weights that can serve as a source, the usual one first.

    VGG16's IMAGENET1K_FEATURES is left out: its classifier, fc6 and fc7 included, is NaN.
    """
    check_architecture(architecture)
    return (_V1, _V2) if architecture in (*_WITH_V2, "wide_resnet101_2") else (_V1,)


def resolve_weights(weights: str, architecture: str) -> WeightsChoice:
    """Tell what a `weights` setting names, without reading or downloading it.

    A file or folder of that name wins over torchvision's names; write ./NAME to mean a path in any case.

    Args:
        weights: torchvision's enum name (with or without its class, or DEFAULT); a .pth, .pt or .safetensors file, or
            the URI (s3://, gs://) of one; a run folder or a trial's folder in it; or "none".
        architecture: torchvision's name.

    Raises:
        WeightsError: It names nothing that is there, or weights without a part that every strategy needs; whether an
            object is there is told when it is fetched.
        UsageError: A URI of another kind, or with credentials.
    """
    known = torchvision_weight_names(architecture)
    path = Path(weights).expanduser()
    if weights == NONE:
        return WeightsChoice("none", "")
    if is_uri(weights):
        if not weights.endswith(_FILE_SUFFIXES):
            raise WeightsError(
                f"--weights {weights}: an object with weights ends in {', '.join(_FILE_SUFFIXES)}. Of a run in an "
                "object store give a trial's model: <run>/trials/<trial>/best.safetensors."
            )
        return WeightsChoice("object", parse_uri(weights).uri)
    if weights and path.exists():
        return WeightsChoice("folder" if path.is_dir() else "file", str(path.absolute()))
    name = weights.rpartition(".")[2] if "_Weights." in weights else weights
    if name == "DEFAULT":
        name = known[-1]
    if name in known:
        return WeightsChoice("torchvision", name)
    ways = (
        f"{architecture} can start from {' or '.join(known)} (torchvision), a .pth or .safetensors file "
        f"(a path, or a URI: s3://, gs://), a run folder, or {NONE}."
    )
    if name == _FEATURES_ONLY:
        raise WeightsError(
            f"--weights {weights}: these weights have no classifier (fc6 and fc7 are NaN), and every strategy starts "
            f"from them. {ways}"
        )
    if "/" in weights or weights.endswith(_FILE_SUFFIXES):
        raise WeightsError(f"--weights {weights}: there is no such file or folder ({path.absolute()}). {ways}")
    near = difflib.get_close_matches(name, [*known, NONE], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise WeightsError(f"--weights {weights}: no such weights, file or folder.{hint} {ways}")
