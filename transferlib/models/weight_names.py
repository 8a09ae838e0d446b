"""What a `weights` setting means: torchvision's name, a file, an object, a run folder or none. Loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transferlib.errors import WeightsError
from transferlib.models.backbones import get_backbone
from transferlib.storage.uris import is_uri, parse_uri

NONE = "none"
_FILE_SUFFIXES = (".pth", ".pt", ".safetensors")
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
    known = get_backbone(architecture).weights
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
