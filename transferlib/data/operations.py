"""What an augmentation operation is: torchvision's random transform, the half of it that draws.

Each operation turns uniform numbers into the calls that torchvision's transform of its name would make, with the same
distribution. It takes a fixed count of numbers whatever they lead to, so that an operation's draws do not depend on
those of its neighbours.

Source: the `make_params` of `torchvision.transforms.v2`, whose names and defaults the parameters have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol, Self

from transferlib.data.composition import Call
from transferlib.data.parameters import Parameters, Size, Span

_TRIES = 10
PART_UNIFORMS = 2 * _TRIES + 2
"""Numbers that a random part takes: area and ratio of each try, then its place."""


class Operation(Protocol):
    """Draw calls from uniform numbers."""

    num_uniforms: ClassVar[int]

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        """Return the operation that the parameters describe; mistakes are noted in them."""
        ...

    def output_size(self, size: Size | None) -> Size | None:
        """Return the output's height, width from the input's; None: not the same for all images."""
        ...

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        """Return what to do to an image.

        Args:
            u: [num_uniforms] numbers in [0, 1).
            height: Of the image as it comes in, pixels.
            width: Likewise.
        """
        ...


class KeepsSize:
    """Give an operation the output size of its input."""

    def output_size(self, size: Size | None) -> Size | None:
        return size


def within(span: Span, u: float) -> float:
    """Return the number that lies at `u` (0 to 1) of a range."""
    return span[0] + (span[1] - span[0]) * u


def tries_of(u: Sequence[float], area: int, scale: Span, ratio: Span) -> Iterator[Size]:
    """Yield the sides of ten random parts of an area, the side that grows with the ratio first.

    Args:
        u: [PART_UNIFORMS] numbers in [0, 1), the last two of which are not used here.
        area: Of the whole, pixels.
        scale: Range of the part's share of the area.
        ratio: Range of its aspect ratio, drawn evenly in the logarithm.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for k in range(_TRIES):
        part_area, part_ratio = area * within(scale, u[2 * k]), math.exp(within((low, high), u[2 * k + 1]))
        yield round(math.sqrt(part_area * part_ratio)), round(math.sqrt(part_area / part_ratio))
