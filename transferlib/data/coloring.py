"""The operations on pixel values: colour, blur and erasing, by torchvision's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from transferlib.data.composition import UNCHANGED, Call
from transferlib.data.draws import Fill
from transferlib.data.operations import PART_UNIFORMS, KeepsSize, tries_of, within
from transferlib.data.parameters import Parameters, Size, Span


@dataclass(frozen=True)
class ColorJitter(KeepsSize):
    """Brightness, contrast, saturation and hue by random factors, in random order."""

    num_uniforms: ClassVar[int] = 8
    brightness: Span | None
    contrast: Span | None
    saturation: Span | None
    hue: Span | None

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        factors = [parameters.reach(name, 1.0, 0.0) for name in ("brightness", "contrast", "saturation")]
        brightness, contrast, saturation = (None if span == (1.0, 1.0) else span for span in factors)
        hue = parameters.reach("hue", 0.0, -0.5, 0.5)
        return cls(brightness, contrast, saturation, None if hue == (0.0, 0.0) else hue)

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        spans = {name: getattr(self, name) for name in ("brightness", "contrast", "saturation", "hue")}
        drawn = zip(u[4:], spans.items(), u[:4], strict=True)
        ordered = sorted((place, name, within(span, x)) for place, (name, span), x in drawn if span is not None)
        return [Call(f"adjust_{name}", {f"{name}_factor": factor}) for _, name, factor in ordered]


@dataclass(frozen=True)
class RandomGrayscale(KeepsSize):
    """Grey in all three channels, with probability p."""

    num_uniforms: ClassVar[int] = 1
    p: float

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        return cls(parameters.probability("p", 0.1))

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        return [Call("rgb_to_grayscale", {"num_output_channels": 3}) if u[0] < self.p else Call(UNCHANGED, {})]


@dataclass(frozen=True)
class GaussianBlur(KeepsSize):
    """A Gaussian low-pass of random width, pixels."""

    num_uniforms: ClassVar[int] = 1
    kernel_size: Size
    """Along x, y, as torchvision has it."""
    sigma: Span

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        kernel_size = parameters.size("kernel_size", None)
        if any(side % 2 == 0 for side in kernel_size):
            parameters.refuse("kernel_size", "odd")
        return cls(kernel_size, parameters.span("sigma", (0.1, 2.0), 1e-3, is_one_fine=True))

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        sigma = within(self.sigma, u[0])
        return [Call("gaussian_blur", {"kernel_size": list(self.kernel_size), "sigma": [sigma, sigma]})]


@dataclass(frozen=True)
class RandomErasing(KeepsSize):
    """A rectangle of one colour (of 0 to 255: images are not normalised yet), with probability p."""

    num_uniforms: ClassVar[int] = 1 + PART_UNIFORMS
    p: float
    scale: Span
    ratio: Span
    value: Fill

    @classmethod
    def read(cls, parameters: Parameters, image_size: int) -> Self:
        p = parameters.probability("p", 0.5)
        scale, ratio = parameters.span("scale", (0.02, 0.33), 0.0, 1.0), parameters.span("ratio", (0.3, 3.3), 1e-3)
        parameters.only("inplace", False, "the cached image is never written to")
        return cls(p, scale, ratio, parameters.fill("value"))

    def calls(self, u: Sequence[float], height: int, width: int) -> list[Call]:
        # As torchvision: the ratio is height to width here, and a side as long as the image's is tried again.
        tries = tries_of(u[1:], height * width, self.scale, self.ratio)
        part = next(((h, w) for h, w in tries if h < height and w < width), None)
        if u[0] >= self.p or part is None:
            return [Call(UNCHANGED, {})]
        h, w = part
        top, left = int(u[-2] * (height - h + 1)), int(u[-1] * (width - w + 1))
        return [Call("erase", {"i": top, "j": left, "h": h, "w": w, "v": self.value})]
