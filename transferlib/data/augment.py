"""Augmentation: torchvision's transforms by name, drawn per (seed, epoch, image) and rendered for a batch.

    draws = Augmentation.from_spec("standard", 224).draw(seed, epoch, keys, sizes)     what happens, as data
    pixels = render(images, draws, 224)                                                the pixels

Evaluation is the same function with draws in which nothing is random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transferlib.data.coloring import ColorJitter, GaussianBlur, RandomErasing, RandomGrayscale
from transferlib.data.composition import UNCHANGED, UNMOVED, Call, Composition
from transferlib.data.draws import Draws, uniforms
from transferlib.data.geometry import (
    CenterCrop,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    Resize,
)
from transferlib.data.operations import Operation
from transferlib.data.parameters import Parameters
from transferlib.data.pixels import render
from transferlib.errors import SpecError, unknown_name

__all__ = ["PRESETS", "Augmentation", "evaluation_draws", "evaluation_short_side", "render"]

OPERATIONS: Mapping[str, type[Operation]] = {
    operation.__name__: operation
    for operation in (
        RandomResizedCrop,
        RandomCrop,
        CenterCrop,
        Resize,
        RandomHorizontalFlip,
        RandomVerticalFlip,
        RandomRotation,
        RandomAffine,
        ColorJitter,
        RandomGrayscale,
        GaussianBlur,
        RandomErasing,
    )
}
"""Every operation that a spec can name, by torchvision's name."""

GivenSteps = Sequence[Mapping[str, Mapping[str, Any] | None]]
"""One-key maps {torchvision name: parameters}, in order."""

IMAGENET_MEAN_COLOR = [124, 116, 104]
"""ImageNet's mean colour, which normalises to about zero: torchvision's recipes erase after Normalize, with zero."""

PRESETS: Mapping[str, GivenSteps] = {
    "none": (),
    "standard": (
        {"RandomResizedCrop": {}},
        {"RandomHorizontalFlip": {}},
        {"RandomRotation": {"degrees": 10}},
        {"ColorJitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}},
    ),
    "strong": (
        {"RandomResizedCrop": {}},
        {"RandomHorizontalFlip": {}},
        {"RandomAffine": {"degrees": 20, "shear": 10}},
        {"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}},
        {"RandomGrayscale": {"p": 0.1}},
        {"RandomErasing": {"p": 0.25, "value": IMAGENET_MEAN_COLOR}},
    ),
}
"""Each preset as the explicit list that says the same."""


def evaluation_short_side(image_size: int) -> int:
    """Return the short side that an image is resized to before its centre is cropped, pixels."""
    return round(image_size * 256 / 224)


@dataclass(frozen=True)
class Augmentation:
    """What a training image goes through, operation by operation."""

    image_size: int
    """Side of the result, pixels."""
    operations: tuple[Operation, ...]
    """In order."""

    @classmethod
    def from_spec(cls, augmentation: str | GivenSteps, image_size: int) -> Augmentation:
        """Return the augmentation that a spec asks for.

        A list without any operation that sets the size works on the evaluation's crop.

        Args:
            augmentation: A preset's name, or one-key maps {torchvision name: parameters}.
            image_size: Side S of the result, pixels.

        Raises:
            SpecError: Unknown names, parameters or values, all at once; or a list that does not end at S x S.
        """
        if isinstance(augmentation, str):
            if augmentation not in PRESETS:
                raise SpecError(unknown_name("augmentation", augmentation, PRESETS))
            augmentation = PRESETS[augmentation]
        operations, problems = _read(augmentation, image_size)
        if not any(operation.output_size(None) or isinstance(operation, Resize) for operation in operations):
            operations = [*_evaluation(image_size), *operations]
        size = None
        for operation in operations:
            size = operation.output_size(size)
        if not problems and size != (image_size, image_size):
            ends = "at sizes that differ from image to image" if size is None else f"at {size[0]}x{size[1]}"
            problems = [
                f"augmentation: the list ends {ends}; a model sees {image_size}x{image_size} (image_size). "
                "Let its last size-setting step be RandomResizedCrop, RandomCrop or CenterCrop without `size`."
            ]
        if problems:
            raise SpecError(problems)
        return cls(image_size, tuple(operations))

    @property
    def num_uniforms(self) -> int:
        """Return how many numbers an image takes."""
        return sum(operation.num_uniforms for operation in self.operations)

    def calls(self, seed: int, epoch: int, key: int, size: tuple[int, int]) -> list[Call]:
        """Return what happens to one image, as calls of `torchvision.transforms.v2.functional`.

        Args:
            seed: The trial's seed.
            epoch: From 0.
            key: The image's key, 64 bit.
            size: Height, width of the image, pixels.
        """
        calls = self._compose(uniforms(seed, epoch, key, self.num_uniforms), size)[0]
        return [call for call in calls if call.function not in (UNMOVED, UNCHANGED)]

    def draw(self, seed: int, epoch: int, keys: NDArray[np.uint64], sizes: NDArray[np.integer[Any]]) -> Draws:
        """Return the draws of a batch; each image's depend on (seed, epoch, its key, its size) alone.

        Args:
            seed: The trial's seed.
            epoch: From 0.
            keys: [B] image keys.
            sizes: [B, 2] height, width of each image, pixels.
        """
        count = self.num_uniforms
        images = zip(np.asarray(keys).tolist(), np.asarray(sizes).reshape(-1, 2).tolist(), strict=True)
        return Draws.stack([self._compose(uniforms(seed, epoch, k, count), (h, w))[1].finish() for k, (h, w) in images])

    def _compose(self, numbers: Sequence[float], size: tuple[int, int]) -> tuple[list[Call], Composition]:
        composition, calls, start = Composition(*size), [], 0
        for operation in self.operations:
            end = start + operation.num_uniforms
            for call in operation.calls(numbers[start:end], *composition.size):
                composition.add(call)
                calls.append(call)
            start = end
        return calls, composition


def evaluation_draws(sizes: NDArray[np.integer[Any]], image_size: int) -> Draws:
    """Return draws in which nothing is random: short side to round(S * 256 / 224), then the central S x S.

    Args:
        sizes: [B, 2] height, width of each image, pixels.
        image_size: Side S of the result, pixels.
    """
    augmentation = Augmentation(image_size, tuple(_evaluation(image_size)))
    return augmentation.draw(0, 0, np.zeros(len(sizes), np.uint64), sizes)


def _evaluation(image_size: int) -> list[Operation]:
    short_side = evaluation_short_side(image_size)
    return [Resize(short_side, (short_side, short_side)), CenterCrop((image_size, image_size))]


def _read(steps: GivenSteps, image_size: int) -> tuple[list[Operation], list[str]]:
    operations: list[Operation] = []
    problems: list[str] = []
    for number, step in enumerate(steps, start=1):
        for name, given in step.items():
            where = f"augmentation step {number}, {name}"
            if name not in OPERATIONS:
                problems.append(f"augmentation step {number}: {unknown_name('transform', name, OPERATIONS)}")
                continue
            parameters = Parameters(where, given or {})
            operations.append(OPERATIONS[name].read(parameters, image_size))
            parameters.finish()
            problems += parameters.problems
    return operations, problems
