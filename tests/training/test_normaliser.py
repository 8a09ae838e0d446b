from __future__ import annotations

import numpy as np
import torch

from transferlib.training.normaliser import Normaliser

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_images_are_normalised_by_channel_and_stay_channels_last() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), dtype=np.uint8)
    images = Normaliser(MEAN, STD, torch.device("cpu")).images(pixels)
    expected = (torch.from_numpy(pixels).double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images, expected.permute(0, 3, 1, 2).float(), rtol=1e-5, atol=1e-6)


def test_read_only_pixels_are_copied_and_left_as_they_are() -> None:
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    pixels.flags.writeable = False
    normaliser = Normaliser(MEAN, STD, torch.device("cpu"))
    normaliser.to_device(pixels).fill_(7)
    assert not pixels.any()


def test_no_images_give_no_rows() -> None:
    assert Normaliser(MEAN, STD, torch.device("cpu")).images(np.empty((0, 4, 4, 3), np.uint8)).shape == (0, 3, 4, 4)
