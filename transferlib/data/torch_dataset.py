"""The same images as a plain `torch.utils.data.Dataset`, for notebooks: pixel for pixel what a training saw.

dataset = ImageDataset("runs/<id>/manifest.parquet", "train", augmentation="standard", seed=0)
dataset.set_epoch(3)
image, label = dataset[0]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from transferlib.data.augment import Augmentation, evaluation_short_side
from transferlib.data.batches import Renderer
from transferlib.data.decode import Limits
from transferlib.data.schedule import Phase
from transferlib.data.source import PixelSource
from transferlib.spec import DataSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Source: torchvision's weights, `transforms().mean`."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Source: torchvision's weights, `transforms().std`."""


class ImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """Give the used images of one split of a manifest, in row order, as a model sees them.

    Args:
        manifest: Path of `manifest.parquet`.
        split: train, val or test.
        image_size: Side S, pixels.
        augmentation: A preset's name or a list of operations, as in a spec; what train images go through.
        seed: Of the augmentation.
        cache_dir: Root of a decoded cache to read (and fill); None: decode the files.
        mean: Of each channel, subtracted after scaling to [0, 1].
        std: Of each channel, divided by afterwards.
        limits: What is refused before decoding; None: a spec's defaults.
    """

    def __init__(
        self,
        manifest: str | Path,
        split: Phase,
        *,
        image_size: int = 224,
        augmentation: str | Sequence[Mapping[str, Mapping[str, Any]]] = "standard",
        seed: int = 0,
        cache_dir: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        limits: Limits | None = None,
    ) -> None:
        defaults = DataSpec(path=str(manifest))
        source = PixelSource(
            manifest=str(Path(manifest).absolute()),
            cache_dir=None if cache_dir is None else str(Path(cache_dir).absolute()),
            short_side=evaluation_short_side(image_size),
            limits=limits or Limits(defaults.max_pixels, defaults.max_file_bytes),
        )
        self._renderer = Renderer(source, Augmentation.from_spec(augmentation, image_size), image_size, seed)
        self._split: Phase = split
        self._epoch = 0
        self._mean = torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32).view(3, 1, 1)
        images = source.open().images
        self.classes = images.classes
        """Class names; a label is an index into them."""
        self.rows = images.rows(split)
        """Rows of the manifest's image table, int64 [N]."""
        self.labels = images.labels[self.rows]
        """Class indices, int64 [N]."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation is shown; before a DataLoader starts its workers.

        Args:
            epoch: From 0.
        """
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return an image, float32 [3, S, S], normalised, and its class index."""
        row = self.rows[index]
        (pixels,) = self._renderer.render(self._split, self._epoch, np.array([row]))
        image = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div(255)
        return (image - self._mean) / self._std, int(self.labels[index])
