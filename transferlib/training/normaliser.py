"""Batches become tensors on the device: bytes travel, floats are made where they are used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Normaliser:
    """Turn uint8 images into what a network was trained on.

    Args:
        mean: Of each channel, of values 0 to 1.
        std: Of each channel, of values 0 to 1.
        device: Where the network is.
    """

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device) -> None:
        self._device = device
        self._use_pinned = device.type == "cuda"
        # (x / 255 - mean) / std as one multiplication and one addition.
        self._scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, 3, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, 3, 1, 1)

    def images(self, pixels: npt.NDArray[np.uint8]) -> Tensor:
        """Return normalised images, float32 [B, 3, S, S] in channels_last memory, on the device.

        Args:
            pixels: RGB, uint8 [B, S, S, 3]; may be read-only.
        """
        # NHWC seen as NCHW is channels_last already; the conversion to float keeps the memory order.
        images = self.to_device(pixels).permute(0, 3, 1, 2)
        return images.to(torch.float32).mul_(self._scale).add_(self._shift)

    def to_device(self, array: npt.NDArray[np.uint8] | npt.NDArray[np.int64]) -> Tensor:
        """Return a copy of an array on the device; to a GPU from pinned memory, without waiting for it."""
        staged = torch.empty(array.shape, dtype=_DTYPES[array.dtype.type], pin_memory=self._use_pinned)
        staged.numpy()[...] = array
        return staged.to(self._device, non_blocking=True)


_DTYPES: dict[type, torch.dtype] = {np.uint8: torch.uint8, np.int64: torch.int64}
