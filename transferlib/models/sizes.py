"""How large each stage of each network is: parameters, and multiply-adds of one forward pass.

Plain data, so that the plan and the table of strategies need no torch. A test recounts all of it on torchvision's
models.

Source: counted on torchvision 0.29's models at 224 px; the sums are `num_params` and `_ops` of its weights' metadata.
"""

from __future__ import annotations

from dataclasses import dataclass

from transferlib.models.stages import HEAD, stage_names
from transferlib.names import VGGS

REFERENCE_IMAGE_SIZE = 224
"""Image size that the multiply-adds are given for, pixels."""


@dataclass(frozen=True)
class StageSize:
    """Give the size of one stage."""

    parameters: int
    """Weights, biases and BatchNorm's scales and shifts; not its running statistics."""
    macs: int
    """Multiply-adds of one image's forward pass through convolutions and Linears, at the image size asked for."""


def stage_sizes(architecture: str, num_classes: int, image_size: int = REFERENCE_IMAGE_SIZE) -> dict[str, StageSize]:
    """Return the size of each stage, input to head.

    Multiply-adds of convolutions scale with the image's area (exact at multiples of 32 px); those of Linears do not.

    Args:
        architecture: torchvision's name.
        num_classes: Outputs of the head (K).
        image_size: Side of the square image, pixels.
    """
    names = stage_names(architecture)
    area = (image_size / REFERENCE_IMAGE_SIZE) ** 2
    columns = zip(names[:-1], _BACKBONE_PARAMETERS[architecture], _BACKBONE_MACS_224[architecture], strict=True)
    sizes = {
        name: StageSize(parameters, macs if name == "fully_connected" else round(macs * area))
        for name, parameters, macs in columns
    }
    features = head_features(architecture)
    return {**sizes, HEAD: StageSize((features + 1) * num_classes, features * num_classes)}


def head_features(architecture: str) -> int:
    """Return the number of features (D) that the head sees."""
    if architecture in VGGS:
        return 4096
    return 512 if architecture in ("resnet18", "resnet34") else 2048


def total_parameters(architecture: str, num_classes: int) -> int:
    """Return the number of parameters of the whole network."""
    return sum(size.parameters for size in stage_sizes(architecture, num_classes).values())


# One number a stage, input to the last stage before the head.
_BACKBONE_PARAMETERS: dict[str, tuple[int, ...]] = {
    "resnet18": (9_536, 147_968, 525_568, 2_099_712, 8_393_728),
    "resnet34": (9_536, 221_952, 1_116_416, 6_822_400, 13_114_368),
    "resnet50": (9_536, 215_808, 1_219_584, 7_098_368, 14_964_736),
    "resnet101": (9_536, 215_808, 1_219_584, 26_090_496, 14_964_736),
    "resnet152": (9_536, 215_808, 2_339_840, 40_613_888, 14_964_736),
    "resnext50_32x4d": (9_536, 205_824, 1_197_056, 7_022_592, 14_544_896),
    "resnext101_32x8d": (9_536, 420_864, 2_405_376, 55_160_832, 28_745_728),
    "resnext101_64x4d": (9_536, 393_216, 2_257_920, 51_769_344, 26_976_256),
    "wide_resnet50_2": (9_536, 634_368, 3_482_624, 20_736_000, 41_971_712),
    "wide_resnet101_2": (9_536, 634_368, 3_482_624, 78_739_456, 41_971_712),
    "vgg11": (1_792, 73_856, 885_248, 3_539_968, 4_719_616, 119_545_856),
    "vgg11_bn": (1_920, 74_112, 886_272, 3_542_016, 4_721_664, 119_545_856),
    "vgg13": (38_720, 221_440, 885_248, 3_539_968, 4_719_616, 119_545_856),
    "vgg13_bn": (38_976, 221_952, 886_272, 3_542_016, 4_721_664, 119_545_856),
    "vgg16": (38_720, 221_440, 1_475_328, 5_899_776, 7_079_424, 119_545_856),
    "vgg16_bn": (38_976, 221_952, 1_476_864, 5_902_848, 7_082_496, 119_545_856),
    "vgg19": (38_720, 221_440, 2_065_408, 8_259_584, 9_439_232, 119_545_856),
    "vgg19_bn": (38_976, 221_952, 2_067_456, 8_263_680, 9_443_328, 119_545_856),
}
_BACKBONE_MACS_224: dict[str, tuple[int, ...]] = {
    "resnet18": (118_013_952, 462_422_016, 411_041_792, 411_041_792, 411_041_792),
    "resnet34": (118_013_952, 693_633_024, 873_463_808, 1_335_885_824, 642_252_800),
    "resnet50": (118_013_952, 667_942_912, 1_027_604_480, 1_464_336_384, 809_238_528),
    "resnet101": (118_013_952, 667_942_912, 1_027_604_480, 5_176_557_568, 809_238_528),
    "resnet152": (118_013_952, 667_942_912, 1_901_068_288, 8_015_314_944, 809_238_528),
    "resnext50_32x4d": (118_013_952, 634_224_640, 1_085_407_232, 1_525_350_400, 865_435_648),
    "resnext101_32x8d": (118_013_952, 1_303_773_184, 2_183_659_520, 11_091_705_856, 1_714_814_976),
    "resnext101_64x4d": (118_013_952, 1_217_069_056, 2_068_054_016, 10_426_974_208, 1_628_110_848),
    "wide_resnet50_2": (118_013_952, 1_978_138_624, 2_877_292_544, 4_213_178_368, 2_209_349_632),
    "wide_resnet101_2": (118_013_952, 1_978_138_624, 2_877_292_544, 15_568_207_872, 2_209_349_632),
    "vgg11": (86_704_128, 924_844_032, 2_774_532_096, 2_774_532_096, 924_844_032, 119_537_664),
    "vgg11_bn": (86_704_128, 924_844_032, 2_774_532_096, 2_774_532_096, 924_844_032, 119_537_664),
    "vgg13": (1_936_392_192, 2_774_532_096, 2_774_532_096, 2_774_532_096, 924_844_032, 119_537_664),
    "vgg13_bn": (1_936_392_192, 2_774_532_096, 2_774_532_096, 2_774_532_096, 924_844_032, 119_537_664),
    "vgg16": (1_936_392_192, 2_774_532_096, 4_624_220_160, 4_624_220_160, 1_387_266_048, 119_537_664),
    "vgg16_bn": (1_936_392_192, 2_774_532_096, 4_624_220_160, 4_624_220_160, 1_387_266_048, 119_537_664),
    "vgg19": (1_936_392_192, 2_774_532_096, 6_473_908_224, 6_473_908_224, 1_849_688_064, 119_537_664),
    "vgg19_bn": (1_936_392_192, 2_774_532_096, 6_473_908_224, 6_473_908_224, 1_849_688_064, 119_537_664),
}
