"""Rendered pixels against torchvision's own functional operations with the same parameters on the same image."""

import math

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from transferlib.data.augment import Augmentation, evaluation_draws
from transferlib.data.pixels import render

S = 64
SEED = 3


def photograph(number: int, height: int = 73, width: int = 96) -> np.ndarray:
    """Return an image like a photograph: smooth random fields, a few hard edges, a little texture."""
    rng = np.random.default_rng(number)
    image = np.zeros((height, width, 3))
    for side, weight in ((3, 70), (7, 40), (15, 18), (31, 6)):
        field = rng.standard_normal((side, side, 3))
        image += weight * cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.uniform(70, 180, 3)
    for _ in range(3):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        color = tuple(float(c) for c in rng.integers(0, 255, 3))
        cv2.ellipse(image, center, (int(rng.integers(6, 22)), int(rng.integers(6, 22))), 30, 0, 360, color, -1)
    return np.clip(cv2.GaussianBlur(image, (5, 5), 0.9), 0, 255).astype(np.uint8)


def reference(image: np.ndarray, calls: list) -> np.ndarray:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)
    for function, arguments in calls:
        options = {name: list(v) if isinstance(v, tuple) else v for name, v in arguments.items()}
        if function in ("resize", "resized_crop", "rotate", "affine"):
            options["interpolation"] = InterpolationMode.BILINEAR
        if function == "erase":
            options["v"] = torch.tensor(options["v"])[:, None, None]
        pixels = getattr(F, function)(pixels, **options)
    return pixels.permute(1, 2, 0).numpy()


def both(steps, number: int, epoch: int = 0, image_size: int = S) -> tuple[np.ndarray, np.ndarray, list]:
    image = photograph(number)
    augmentation = Augmentation.from_spec(steps, image_size)
    key, size = 1000 + number, image.shape[:2]
    draws = augmentation.draw(SEED, epoch, np.array([key], np.uint64), np.array([size]))
    calls = augmentation.calls(SEED, epoch, key, size)
    return render([image], draws, image_size)[0], reference(image, calls), calls


def away_from_edges(pixels: np.ndarray, calls: list, margin: int = 3) -> np.ndarray:
    """Return the pixels whose surroundings neither the picture's border nor a filled corner touches."""
    moved = [call for call in calls if call.function in ("rotate", "affine", "pad", "crop", "horizontal_flip")]
    white = np.full((*pixels.shape[:2], 3), 255, np.uint8)
    seen = reference(white, moved)[..., 0] if moved and pixels.shape[0] == S else white[..., 0]
    inside = np.zeros(pixels.shape[:2], np.uint8)
    inside[margin:-margin, margin:-margin] = 1
    inside[seen < 255] = 0
    return cv2.erode(inside, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)).astype(bool)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2)))


COLOR = {
    "brightness": {"ColorJitter": {"brightness": 0.6}},
    "contrast": {"ColorJitter": {"contrast": 0.6}},
    "saturation": {"ColorJitter": {"saturation": 0.8}},
    "hue": {"ColorJitter": {"hue": 0.5}},
    "greyscale": {"RandomGrayscale": {"p": 1}},
    "blur": {"GaussianBlur": {"kernel_size": [5, 3], "sigma": [0.3, 2.0]}},
    "erasing": {"RandomErasing": {"p": 1, "value": [10, 20, 30]}},
}
GEOMETRY = {
    "flip": {"RandomHorizontalFlip": {"p": 1}},
    "vertical flip": {"RandomVerticalFlip": {"p": 1}},
    "rotation": {"RandomRotation": {"degrees": 45}},
    "rotation about a corner": {"RandomRotation": {"degrees": 20, "center": [0, 0], "fill": [255, 0, 9]}},
    "affine": {
        "RandomAffine": {"degrees": 30, "translate": [0.2, 0.1], "scale": [0.9, 1.4], "shear": [-9, 9, -5, 5]}
    },
    "padded crop": {"RandomCrop": {"size": S, "padding": [7, 5], "fill": 128}},
    "crop": {"RandomCrop": {}},
}


@pytest.mark.parametrize("name", [*COLOR, *GEOMETRY])
def test_each_operation_alone_is_within_two_grey_levels_of_torchvision(name):
    for number in range(12):
        ours, theirs, calls = both([(COLOR | GEOMETRY)[name]], number)
        inside = away_from_edges(ours, calls)
        difference = np.abs(ours.astype(int) - theirs)[inside]
        assert inside.mean() > 0.2, (number, calls)
        assert difference.max() <= 2, (number, calls, difference.max())
        assert difference.mean() < 0.8


@pytest.mark.parametrize("name", ["flip", "vertical flip", "crop", "padded crop", "erasing"])
def test_operations_that_only_move_whole_pixels_are_exact(name):
    for number in range(6):
        ours, theirs, _ = both([(COLOR | GEOMETRY)[name]], number)
        np.testing.assert_array_equal(ours, theirs)


def test_enlarging_crop_is_within_two_grey_levels():
    for number in range(12):
        ours, theirs, calls = both([{"RandomResizedCrop": {"scale": [0.05, 0.4]}}], number)
        assert np.abs(ours.astype(int) - theirs)[away_from_edges(ours, calls)].max() <= 2
