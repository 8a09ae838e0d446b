"""Fetch torchvision's weights into torch's cache, or say how to do without."""

from __future__ import annotations

import hashlib
import re
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch.hub
from torchvision.models import get_model_weights

from transferlib.errors import WeightsError

_NETWORK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class TorchvisionWeights:
    """Know one of torchvision's weights, and where its file belongs on this machine."""

    architecture: str
    name: str
    url: str
    mean: tuple[float, ...]
    """Of the training images' channels R, G, B on a scale of 0 to 1."""
    std: tuple[float, ...]
    classes: tuple[str, ...]

    @classmethod
    def find(cls, architecture: str, name: str) -> TorchvisionWeights:
        """Look the weights up in torchvision's enum; nothing is read or fetched.

        Args:
            architecture: torchvision's name.
            name: One of its backbone's `weights`.
        """
        entry = get_model_weights(architecture)[name]
        preset = entry.transforms()
        return cls(
            architecture, name, entry.url, tuple(preset.mean), tuple(preset.std), tuple(entry.meta["categories"])
        )

    @property
    def path(self) -> Path:
        """Return the file's place in torch's cache ($TORCH_HOME/hub/checkpoints), whether it is there or not."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rpartition("/")[2]

    @property
    def hash_prefix(self) -> str:
        """Return the first hex digits of the file's sha256, which torchvision keeps in its name."""
        return re.search(r"-([0-9a-f]{8,})\.", self.path.name)[1]  # type: ignore[index]

    @property
    def ways_out(self) -> str:
        """Return what a user can do where the file cannot be had."""
        return (
            f"Either put the file from {self.url} at {self.path} (TORCH_HOME moves that folder), or give "
            "--weights FILE (.pth, .safetensors or a run folder) or --weights none (random weights)."
        )


def why_unreachable(url: str, timeout_s: float = 5.0) -> str:
    """Return why a file cannot be fetched from here, as its host or the network says it; empty where it can.

    Args:
        url: Of the file, of which only the head is asked for.
        timeout_s: How long to wait.
    """
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s):
            return ""
    except OSError as error:  # URLError and HTTPError are OSErrors
        return str(getattr(error, "reason", "") or error)


def fetch(weights: TorchvisionWeights) -> tuple[Path, list[str]]:
    """Return the weights' file, downloaded and checked if the cache lacks it, and notes.

    Args:
        weights: Which ones.

    Raises:
        WeightsError: The download fails; the text names the cache and the two ways out.
    """
    path = weights.path
    title = f"{weights.architecture} {weights.name}"
    if path.exists():
        if _sha256(path).startswith(weights.hash_prefix):
            return path, []
        return path, [f"{path} is not the file that torchvision publishes for {title} (its sha256 differs)."]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _network_timeout(_NETWORK_TIMEOUT_S):
            torch.hub.download_url_to_file(weights.url, str(path), weights.hash_prefix, progress=False)
    except (OSError, RuntimeError) as error:  # URLError and timeouts are OSErrors; a wrong hash is a RuntimeError
        raise WeightsError(f"The weights {title} could not be downloaded: {error}. {weights.ways_out}") from None
    return path, [f"{title} was downloaded to {path}."]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    # torch.hub sets no time limit of its own: a silent firewall would hold the job for minutes
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
