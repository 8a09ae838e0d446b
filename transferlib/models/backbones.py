"""Backbones: all that is known of each network by hand, one entry each, by torchvision's name. Loads no torch.

A new network of torchvision is one entry here and its name in `names.py`. What can be counted is not written down:
`counting.py` counts sizes, activations and the images that are too small, and `sizes.py` reads what it wrote.

The head is the last Linear only, and what has no weights (pooling, Dropout) belongs to the stage before it: where that
stage is frozen, what the head sees of an image is the same each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from transferlib.errors import SpecError, unknown_name
from transferlib.names import ARCHITECTURES

HEAD = "head"
ConvolutionFill = Literal["fan_out", "fan_in", "truncated_normal"]
"""Rules of a new convolution: He's by outputs or by inputs, or a normal of deviation 0.02 cut at ±2. Biases are 0."""
LinearFill = Literal["torch", "torch_without_bias", "normal", "truncated_normal"]
"""Rules of a new Linear: torch's own (uniform within ±1/sqrt(inputs)), the same with a bias of 0, a normal of deviation
0.01, or a normal of deviation 0.02 cut at ±2. All but torch's own have a bias of 0."""
Rates = Mapping[str, Mapping[str, float]]
"""By optimizer and strategy."""
CpuSpeed = Mapping[Literal["fp32", "bf16"], float]
"""Share of ResNet-18's multiply-adds a second that a network reaches on a CPU, by precision."""
_AS_RESNET: CpuSpeed = {"fp32": 1.0, "bf16": 1.0}


@dataclass(frozen=True)
class Backbone:
    """Know a network of torchvision's."""

    stages: Mapping[str, tuple[str, ...]]
    """Names of the modules of each stage, in the order they run, input first; the last is the head's one Linear."""
    weights: tuple[str, ...]
    """torchvision's weights that can serve as a source, the usual ones first, its default last."""
    base_lrs: Rates
    """The head's peak rate."""
    convolutions: ConvolutionFill
    """How torchvision fills a new network's convolutions."""
    linears: LinearFill
    """How it fills its Linears, the head included (EfficientNet's head excepted)."""
    cpu_speed: CpuSpeed = field(default_factory=lambda: _AS_RESNET)
    """For a plan's time; a depthwise convolution has few multiply-adds for each number that it reads."""
    layer_scale: float = 1.0
    """What ConvNeXt's factors of each residual block begin at."""
    renamed_keys: tuple[tuple[str, str], ...] = ()
    """Regular expressions of state-dict keys in torchvision's older files, each with what takes its place."""


def get_backbone(architecture: str) -> Backbone:
    """Return what is known of a network.

    Args:
        architecture: torchvision's name.

    Raises:
        SpecError: It is not one of ours; the text has the nearest name and all of them.
    """
    if architecture not in BACKBONES:
        raise SpecError(unknown_name("architecture", architecture, ARCHITECTURES))
    return BACKBONES[architecture]


def stage_names(architecture: str) -> tuple[str, ...]:
    """Return the stages in order, input first, `head` last.

    Args:
        architecture: torchvision's name.
    """
    return tuple(get_backbone(architecture).stages)


def head_name(architecture: str) -> str:
    """Return the head's module name: the prefix of its state-dict keys, without the dot."""
    return get_backbone(architecture).stages[HEAD][0]


def is_head_key(key: str, architecture: str) -> bool:
    """Return whether a state-dict key belongs to the head."""
    return key.startswith(f"{head_name(architecture)}.")


# Base rates are the head's peak under warm-up and cosine, for steps of 8 to 32 images. They only have to be of the
# right order of magnitude: three candidates span a factor of 10 around each, and the comparison marks an arm whose
# choice lies at the edge.
#
# SGD with momentum 0.9. ResNet: the demo's prototype took 0.1 for frozen features and 0.03 for everything else, at 8
# images a step. VGG without BatchNorm was itself trained at 0.01 with 256 images a step (Simonyan and Zisserman, 2015,
# section 3.1), where ResNet was at 0.1 (He et al., 2016, section 3.4), so a tenth of ResNet's rates. VGG with
# BatchNorm: its classifier is not normalised, so what starts from source weights gets a third of ResNet's rate.
# DenseNet was trained as ResNet was (Huang et al., 2017, section 4.2), and torchvision's EfficientNetV2 at 0.5 with
# 1,024 images a step, which is 0.125 with 256: ResNet's rates. ConvNeXt was trained by AdamW alone: a third of ResNet's
# where source weights move, a guess.
#
# AdamW's steps do not grow with the gradient, so its rates differ less: 3e-3 for a ResNet's new head alone, 1e-3 for a
# new network, 3e-4 where source weights move, and about a third of each for VGG without BatchNorm. ConvNeXt was
# fine-tuned at 5e-5 with 512 images a step (Liu et al., 2022, appendix A.2): a third of ResNet's too.
_RESNET_LRS: Rates = {
    "sgd": {"feature_extraction": 0.1, "last_layers": 0.03, "full": 0.03, "scratch": 0.03},
    "adamw": {"feature_extraction": 3e-3, "last_layers": 3e-4, "full": 3e-4, "scratch": 1e-3},
}
_VGG_BN_LRS: Rates = {
    "sgd": {"feature_extraction": 0.03, "last_layers": 0.01, "full": 0.01, "scratch": 0.03},
    "adamw": {"feature_extraction": 1e-3, "last_layers": 3e-4, "full": 3e-4, "scratch": 1e-3},
}
_VGG_LRS: Rates = {
    "sgd": {"feature_extraction": 0.01, "last_layers": 0.003, "full": 0.003, "scratch": 0.003},
    "adamw": {"feature_extraction": 1e-3, "last_layers": 1e-4, "full": 1e-4, "scratch": 3e-4},
}
_CONVNEXT_LRS: Rates = {
    "sgd": {"feature_extraction": 0.03, "last_layers": 0.01, "full": 0.01, "scratch": 0.03},
    "adamw": {"feature_extraction": 1e-3, "last_layers": 1e-4, "full": 1e-4, "scratch": 3e-4},
}

_V1, _V2 = "IMAGENET1K_V1", "IMAGENET1K_V2"


def _resnet(*weights: str) -> Backbone:
    """Return a ResNet, ResNeXt or wide ResNet: the first convolution, four stages of blocks, `fc`."""
    stages = {
        "stem": ("conv1", "bn1", "relu", "maxpool"),
        "layer1": ("layer1",),
        "layer2": ("layer2",),
        "layer3": ("layer3",),
        "layer4": ("layer4", "avgpool"),
        HEAD: ("fc",),
    }
    return Backbone(stages, weights, _RESNET_LRS, "fan_out", "torch")


def _vgg(*convolutions: int, batchnorm: bool = False) -> Backbone:
    """Return a VGG: five blocks up to and with each pooling, fc6 and fc7 with the Dropout behind each, the last Linear.

    Its weights IMAGENET1K_FEATURES are left out: their classifier, fc6 and fc7 included, is NaN.

    Args:
        convolutions: Of each block.
        batchnorm: Whether one follows each convolution.
    """
    stages: dict[str, tuple[str, ...]] = {}
    first = 0
    for number, count in enumerate(convolutions, start=1):
        end = first + count * (3 if batchnorm else 2) + 1
        stages[f"block{number}"] = tuple(f"features.{index}" for index in range(first, end))
        first = end
    stages["block5"] += ("avgpool",)
    stages["fully_connected"] = tuple(f"classifier.{index}" for index in range(6))
    stages[HEAD] = ("classifier.6",)
    return Backbone(stages, (_V1,), _VGG_BN_LRS if batchnorm else _VGG_LRS, "fan_out", "normal")


_DENSENET = Backbone(
    # A ReLU and the pooling behind norm5 are no modules.
    stages={
        "stem": tuple(f"features.{name}" for name in ("conv0", "norm0", "relu0", "pool0")),
        **{f"block{n}": (f"features.denseblock{n}", f"features.transition{n}") for n in (1, 2, 3)},
        "block4": ("features.denseblock4", "features.norm5"),
        HEAD: ("classifier",),
    },
    weights=(_V1,),
    base_lrs=_RESNET_LRS,
    convolutions="fan_in",
    linears="torch_without_bias",
    # Source: torchvision 0.29, `densenet._load_state_dict`: the published file is from before names had no dots.
    renamed_keys=((r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2"),),
)
# CPU speeds were measured beside ResNet-18's: training steps of the whole network, 224 px, batch 16, channels_last, one
# thread, a Xeon with AMX; the fastest of three steps, by the process's own CPU time. In images a second, fp32 and bf16:
# ResNet-18 9.9 and 30.0, EfficientNetV2-S 3.4 and 4.7, ConvNeXt-Tiny 2.8 and 3.5.
_EFFICIENTNET_V2_S = Backbone(
    # By the side of what they put out: 1/2, 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's.
    stages={
        "stem": ("features.0",),
        "stage1": ("features.1",),
        "stage2": ("features.2",),
        "stage3": ("features.3",),
        "stage4": ("features.4", "features.5"),
        "stage5": ("features.6", "features.7", "avgpool", "classifier.0"),
        HEAD: ("classifier.1",),
    },
    weights=(_V1,),
    base_lrs=_RESNET_LRS,
    convolutions="fan_out",
    # Ours: torchvision fills it within ±1/sqrt(outputs). Meant for 1,000 classes, that is ±0.71 for two, and a first
    # loss far above log K.
    linears="torch_without_bias",
    cpu_speed={"fp32": 0.55, "bf16": 0.24},
)
_CONVNEXT_TINY = Backbone(
    # Each stage begins with what halves the image's side; the norm before the head is of the last.
    stages={
        "stem": ("features.0",),
        "stage1": ("features.1",),
        "stage2": ("features.2", "features.3"),
        "stage3": ("features.4", "features.5"),
        "stage4": ("features.6", "features.7", "avgpool", "classifier.0", "classifier.1"),
        HEAD: ("classifier.2",),
    },
    weights=(_V1,),
    base_lrs=_CONVNEXT_LRS,
    convolutions="truncated_normal",
    linears="truncated_normal",
    cpu_speed={"fp32": 0.69, "bf16": 0.29},
    layer_scale=1e-6,
)

BACKBONES: Mapping[str, Backbone] = {
    "resnet18": _resnet(_V1),
    "resnet34": _resnet(_V1),
    "resnet50": _resnet(_V1, _V2),
    "resnet101": _resnet(_V1, _V2),
    "resnet152": _resnet(_V1, _V2),
    "resnext50_32x4d": _resnet(_V1, _V2),
    "resnext101_32x8d": _resnet(_V1, _V2),
    "resnext101_64x4d": _resnet(_V1),
    "wide_resnet50_2": _resnet(_V1, _V2),
    "wide_resnet101_2": _resnet(_V1, _V2),
    "vgg11": _vgg(1, 1, 2, 2, 2),
    "vgg11_bn": _vgg(1, 1, 2, 2, 2, batchnorm=True),
    "vgg13": _vgg(2, 2, 2, 2, 2),
    "vgg13_bn": _vgg(2, 2, 2, 2, 2, batchnorm=True),
    "vgg16": _vgg(2, 2, 3, 3, 3),
    "vgg16_bn": _vgg(2, 2, 3, 3, 3, batchnorm=True),
    "vgg19": _vgg(2, 2, 4, 4, 4),
    "vgg19_bn": _vgg(2, 2, 4, 4, 4, batchnorm=True),
    "densenet121": _DENSENET,
    "efficientnet_v2_s": _EFFICIENTNET_V2_S,
    "convnext_tiny": _CONVNEXT_TINY,
}
"""By torchvision's name, which builds it; the names are those of `names.ARCHITECTURES`."""
