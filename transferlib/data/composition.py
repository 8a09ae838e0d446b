"""From torchvision's functional calls to passes: geometry folds into one affine, steps on pixel values follow it.

An operation draws *calls* (`Call("rotate", {"angle": 3.0, ...})`), which are what torchvision itself would do. A
`Composition` folds them: all geometry up to the first step on pixel values is one affine sampling, and the corners
that a rotation, a shift or a padding brings in are remembered as *frames*, outside of which the output is filled.
Geometry after such a step (a RandomRotation after a ColorJitter, say) begins a new pass, because contrast is about the
mean of the picture as it was before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from transferlib.data.draws import STEPS, Affine, Fill, Frame, PassRow

IDENTITY: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
UNMOVED = "unmoved"
"""The call of a geometric operation that was not drawn; it keeps the number of passes the same for all images."""
UNCHANGED = "unchanged"
"""The call of a step on pixel values that was not drawn."""

_CODES = {name: code for code, name in enumerate(STEPS)}


class Call(NamedTuple):
    """One call of `torchvision.transforms.v2.functional`, by name and keyword arguments."""

    function: str
    arguments: Mapping[str, Any]


def compose(outer: Affine, inner: Affine) -> Affine:
    """Return the map that applies `inner` first."""
    a, b, c, d, e, f = outer
    p, q, r, s, t, u = inner
    return (a * p + b * s, a * q + b * t, a * r + b * u + c, d * p + e * s, d * q + e * t, d * r + e * u + f)


def inverse_affine(
    angle: float,
    translate: tuple[float, float],
    scale: float,
    shear: tuple[float, float],
    size: tuple[int, int],
    center: tuple[float, float] | None,
) -> Affine:
    """Return the map from output pixel to input pixel of `torchvision...functional.affine`.

    Args:
        angle: Clockwise, degrees.
        translate: Along x, y, pixels.
        scale: Of the picture.
        shear: Along x, y, degrees.
        size: Height, width of the picture, pixels.
        center: Of rotation (x, y), pixels from the upper left corner; None: the middle.

    Source: `torchvision.transforms.functional._get_inverse_affine_matrix`, there about the picture's middle.
    """
    height, width = size
    rotation, shear_x, shear_y = math.radians(angle), math.radians(shear[0]), math.radians(shear[1])
    a = math.cos(rotation - shear_y) / math.cos(shear_y)
    b = -a * math.tan(shear_x) - math.sin(rotation)
    c = math.sin(rotation - shear_y) / math.cos(shear_y)
    d = -c * math.tan(shear_x) + math.cos(rotation)
    # A pixel's centre lies half a pixel into it: the middle of an even width falls between two centres.
    center_x, center_y = (width / 2, height / 2) if center is None else center
    center_x, center_y = center_x - 0.5, center_y - 0.5
    p, q, s, t = d / scale, -b / scale, -c / scale, a / scale
    shift_x, shift_y = center_x + translate[0], center_y + translate[1]
    return (p, q, center_x - p * shift_x - q * shift_y, s, t, center_y - s * shift_x - t * shift_y)


class Composition:
    """Fold the calls drawn for one image into passes."""

    def __init__(self, height: int, width: int) -> None:
        self._passes: list[PassRow] = []
        self._begin(height, width)

    def _begin(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._box = (0, 0, height, width)
        self._matrix = IDENTITY
        self._softening = (0.0, 0.0)
        self._frames: list[Frame] = []
        self._steps: list[tuple[int, tuple[float, ...]]] = []

    @property
    def size(self) -> tuple[int, int]:
        """Return height, width after the calls so far, pixels."""
        return (self.height, self.width)

    def add(self, call: Call) -> None:
        """Add one call after those already there."""
        if call.function in _CODES:
            self._steps.append((_CODES[call.function], _step_values(call)))
            return
        if self._steps:
            self._passes.append(self._row())
            self._begin(self.height, self.width)
        arguments = call.arguments
        match call.function:
            case "unmoved":
                pass
            case "horizontal_flip":
                self._map((-1.0, 0.0, self.width - 1.0, 0.0, 1.0, 0.0), self.size)
            case "vertical_flip":
                self._map((1.0, 0.0, 0.0, 0.0, -1.0, self.height - 1.0), self.size)
            case "crop":
                self._crop(**arguments)
            case "resize":
                self._resize(*arguments["size"])
            case "resized_crop":
                self._crop(arguments["top"], arguments["left"], arguments["height"], arguments["width"])
                self._resize(*arguments["size"])
            case "pad":
                left, top, right, bottom = arguments["padding"]
                size = (self.height + top + bottom, self.width + left + right)
                self._map((1.0, 0.0, -float(left), 0.0, 1.0, -float(top)), size, arguments["fill"])
            case "rotate":
                # torchvision's rotate turns counter-clockwise, its affine clockwise.
                turned = inverse_affine(-arguments["angle"], (0, 0), 1.0, (0, 0), self.size, arguments["center"])
                self._map(turned, self.size, arguments["fill"])
            case "affine":
                moved = {k: v for k, v in arguments.items() if k != "fill"}
                self._map(inverse_affine(size=self.size, **moved), self.size, arguments["fill"])
            case _:
                raise ValueError(f"{call.function} is no call that a composition knows")

    def finish(self) -> tuple[PassRow, ...]:
        """Return the passes of all calls added."""
        return (*self._passes, self._row())

    def _row(self) -> PassRow:
        return PassRow(self._box, self._matrix, self.size, self._softening, tuple(self._frames), tuple(self._steps))

    def _map(self, inner: Affine, size: tuple[int, int], fill: Fill | None = None) -> None:
        frames = [(compose(frame[0], inner), *frame[1:]) for frame in self._frames]
        if fill is not None:
            frames.append((inner, self.height, self.width, fill))
        self._frames = frames
        self._matrix = compose(self._matrix, inner)
        self.height, self.width = size

    def _crop(self, top: int, left: int, height: int, width: int) -> None:
        is_inside = top >= 0 and left >= 0 and top + height <= self.height and left + width <= self.width
        is_untouched = self._matrix == IDENTITY
        self._map((1.0, 0.0, float(left), 0.0, 1.0, float(top)), (height, width))
        if is_untouched and is_inside:
            self._box = (self._box[0] + top, self._box[1] + left, height, width)
            self._matrix = IDENTITY

    def _resize(self, height: int, width: int) -> None:
        scale_y, scale_x = self.height / height, self.width / width
        if (scale_y, scale_x) == (1.0, 1.0):
            return
        # torchvision shrinks with a triangle of half-width s, of variance s²/6; bilinear sampling has 1/6 of it.
        extra_x, extra_y = (max(scale_x, 1.0) ** 2 - 1) / 6, (max(scale_y, 1.0) ** 2 - 1) / 6
        a, b, _, d, e, _ = self._matrix
        x, y = self._softening
        self._softening = (x + extra_x * a * a + extra_y * b * b, y + extra_x * d * d + extra_y * e * e)
        self._map((scale_x, 0.0, scale_x / 2 - 0.5, 0.0, scale_y, scale_y / 2 - 0.5), (height, width))


def _step_values(call: Call) -> tuple[float, ...]:
    match call.function:
        case "unchanged" | "rgb_to_grayscale":
            return ()
        case "gaussian_blur":
            return (*call.arguments["kernel_size"], *call.arguments["sigma"])
        case "erase":
            return (*(call.arguments[name] for name in ("i", "j", "h", "w")), *call.arguments["v"])
        case _:
            (factor,) = call.arguments.values()
            return (float(factor),)
