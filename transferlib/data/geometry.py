"""The operations that move pixels: crops, resizes, flips, rotation and affine, by torchvision's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from transferlib.data.composition import UNMOVED, Call
from transferlib.data.draws import Fill
from transferlib.data.operations import PART_UNIFORMS, KeepsSize, tries_of, within
from transferlib.data.parameters import Parameters, Size, Span
from transferlib.errors import DataError

_BILINEAR_ONLY = "every sampling here is bilinear"


@dataclass(frozen=True)
class RandomResizedCrop:
    """A part of random area and aspect ratio, resized."""

    num_uniforms: ClassVar[int] = PART_UNIFORMS
    size: Size
    scale: Span
    ratio: Span

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        size = parameters.size("size", (image_size, image_size))
        scale = parameters.span("scale", (0.08, 1.0), 0.0)
        ratio = parameters.span("ratio", (3 / 4, 4 / 3), 1e-3)
        parameters.only("interpolation", "bilinear", _BILINEAR_ONLY)
        parameters.only("antialias", True, "shrinking is always antialiased")
        return cls(size, scale, ratio)

    def output_size(self, size: Size | None) -> Size | None:
        return self.size

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        tries = tries_of(u, height * width, self.scale, self.ratio)
        part = next(((h, w) for w, h in tries if 0 < w <= width and 0 < h <= height), None)
        h, w = part or self._central(height, width)
        top, left = (height - h) // 2, (width - w) // 2
        if part is not None:
            top, left = int(u[-2] * (height - h + 1)), int(u[-1] * (width - w + 1))
        return [Call("resized_crop", {"top": top, "left": left, "height": h, "width": w, "size": list(self.size)})]

    def _central(self, height: int, width: int) -> Size:
        if width / height < self.ratio[0]:
            return (round(width / self.ratio[0]), width)
        if width / height > self.ratio[1]:
            return (height, round(height * self.ratio[1]))
        return (height, width)


@dataclass(frozen=True)
class RandomCrop:
    """A part of fixed size at a random place, padded before where asked."""

    num_uniforms: ClassVar[int] = 2
    size: Size
    padding: tuple[int, int, int, int]
    pad_if_needed: bool
    fill: Fill

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        size = parameters.size("size", (image_size, image_size))
        padding = _read_padding(parameters)
        pad_if_needed = parameters.flag("pad_if_needed", False)
        fill = parameters.fill("fill")
        parameters.only("padding_mode", "constant", "padding has one colour")
        return cls(size, padding, pad_if_needed, fill)

    def output_size(self, size: Size | None) -> Size | None:
        return self.size

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        left, top, right, bottom = self.padding
        if self.pad_if_needed:
            # As torchvision: where the padded image is still too small, both sides get the whole difference.
            more_x = max(0, self.size[1] - (width + left + right))
            more_y = max(0, self.size[0] - (height + top + bottom))
            left, top, right, bottom = left + more_x, top + more_y, right + more_x, bottom + more_y
        height, width = height + top + bottom, width + left + right
        h, w = self.size
        if h > height or w > width:
            raise DataError(
                f"RandomCrop of {h}x{w} does not fit into an image of {height}x{width} pixels (height x width). "
                "Use a smaller size, pad_if_needed: true, or RandomResizedCrop."
            )
        place = {"top": int(u[0] * (height - h + 1)), "left": int(u[1] * (width - w + 1)), "height": h, "width": w}
        if not self.pad_if_needed and not any(self.padding):
            return [Call("crop", place)]
        return [Call("pad", {"padding": [left, top, right, bottom], "fill": self.fill}), Call("crop", place)]


@dataclass(frozen=True)
class CenterCrop:
    """The middle part of fixed size; black where the image is smaller."""

    num_uniforms: ClassVar[int] = 0
    size: Size

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        return cls(parameters.size("size", (image_size, image_size)))

    def output_size(self, size: Size | None) -> Size | None:
        return self.size

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        h, w = self.size
        short_x, short_y = max(0, w - width), max(0, h - height)
        padding = [short_x // 2, short_y // 2, (short_x + 1) // 2, (short_y + 1) // 2]
        height, width = height + short_y, width + short_x
        place = {"top": round((height - h) / 2), "left": round((width - w) / 2), "height": h, "width": w}
        return [Call("pad", {"padding": padding, "fill": (0, 0, 0)}), Call("crop", place)]


@dataclass(frozen=True)
class Resize:
    """The whole image at another size: the short side for one number, height and width for two."""

    num_uniforms: ClassVar[int] = 0
    short_side: int | None
    size: Size

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        given = parameters.value("size")
        size = parameters.size("size", None)
        parameters.only("interpolation", "bilinear", _BILINEAR_ONLY)
        parameters.only("max_size", None, "the short side decides")
        parameters.only("antialias", True, "shrinking is always antialiased")
        is_pair = isinstance(given, list | tuple) and len(given) == 2
        return cls(None if is_pair else size[0], size)

    def output_size(self, size: Size | None) -> Size | None:
        if self.short_side is None:
            return self.size
        return None if size is None else self._scaled(*size)

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        return [Call("resize", {"size": list(self._scaled(height, width))})]

    def _scaled(self, height: int, width: int) -> Size:
        if self.short_side is None:
            return self.size
        long_side = int(self.short_side * max(height, width) / min(height, width))
        return (self.short_side, long_side) if height <= width else (long_side, self.short_side)


@dataclass(frozen=True)
class RandomHorizontalFlip(KeepsSize):
    """Left and right exchanged, with probability p."""

    num_uniforms: ClassVar[int] = 1
    p: float
    function: ClassVar[str] = "horizontal_flip"

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        return cls(parameters.probability("p", 0.5))

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        return [Call(self.function if u[0] < self.p else UNMOVED, {})]


@dataclass(frozen=True)
class RandomVerticalFlip(RandomHorizontalFlip):
    """Top and bottom exchanged, with probability p."""

    function: ClassVar[str] = "vertical_flip"


@dataclass(frozen=True)
class RandomRotation(KeepsSize):
    """A turn by a random angle, counter-clockwise, degrees; corners that come in are filled."""

    num_uniforms: ClassVar[int] = 1
    degrees: Span
    center: Span | None
    fill: Fill

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        degrees = parameters.reach("degrees", 0.0, -360.0, 360.0, is_required=True)
        center, fill = parameters.point("center"), parameters.fill("fill")
        parameters.only("interpolation", "bilinear", _BILINEAR_ONLY)
        parameters.only("expand", False, "the size is kept")
        return cls(degrees, center, fill)

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        return [Call("rotate", {"angle": within(self.degrees, u[0]), "center": self.center, "fill": self.fill})]


@dataclass(frozen=True)
class RandomAffine(KeepsSize):
    """A turn (clockwise, degrees), a shift (share of the size), a scale and a shear (degrees); corners are filled."""

    num_uniforms: ClassVar[int] = 6
    degrees: Span
    translate: Span
    scale: Span
    shear_x: Span
    shear_y: Span
    center: Span | None
    fill: Fill

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        degrees = parameters.reach("degrees", 0.0, -360.0, 360.0, is_required=True)
        translate = parameters.point("translate") or (0.0, 0.0)
        if not all(0 <= share <= 1 for share in translate):
            parameters.refuse("translate", "two numbers (x, y) from 0 to 1")
        scale = parameters.span("scale", (1.0, 1.0), 1e-3)
        shear_x, shear_y = _read_shear(parameters)
        center, fill = parameters.point("center"), parameters.fill("fill")
        parameters.only("interpolation", "bilinear", _BILINEAR_ONLY)
        return cls(degrees, translate, scale, shear_x, shear_y, center, fill)

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        reach_x, reach_y = self.translate[0] * width, self.translate[1] * height
        arguments = {
            "angle": within(self.degrees, u[0]),
            "translate": (round(within((-reach_x, reach_x), u[1])), round(within((-reach_y, reach_y), u[2]))),
            "scale": within(self.scale, u[3]),
            "shear": (within(self.shear_x, u[4]), within(self.shear_y, u[5])),
            "center": self.center,
            "fill": self.fill,
        }
        return [Call("affine", arguments)]


def _read_padding(parameters: Parameters) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom from one number, two (sides, top and bottom) or four."""
    value = parameters.value("padding")
    given = [value] if isinstance(value, int) else value or [0]
    is_list = isinstance(given, list | tuple) and len(given) in (1, 2, 4)
    if not is_list or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in given):
        parameters.refuse(
            "padding", "whole pixels from 0 on: one number, two (x, y) or four (left, top, right, bottom)"
        )
        return (0, 0, 0, 0)
    left, top, right, bottom = (list(given) * 4)[:4]
    return (left, top, right, bottom)


def _read_shear(parameters: Parameters) -> tuple[Span, Span]:
    """Return the ranges along x and y from one number, two (x) or four (x, y), degrees."""
    value = parameters.value("shear")
    if not isinstance(value, list | tuple) or len(value) != 4:
        return parameters.reach("shear", 0.0, -89.0, 89.0), (0.0, 0.0)
    halves = [Parameters("", {"shear": half}) for half in (value[:2], value[2:])]
    shear_x, shear_y = (half.span("shear", (0.0, 0.0), -89.0, 89.0) for half in halves)
    if any(half.problems for half in halves):
        parameters.refuse("shear", "a number from 0 on, two or four in increasing pairs from -89 to 89")
    return shear_x, shear_y
