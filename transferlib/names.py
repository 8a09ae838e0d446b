"""Names that the command line offers; plain data, so that `--help` imports nothing heavy."""

import re
import unicodedata

RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
VGGS = ("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn")
BEYOND_VGG_AND_RESNET = ("densenet121", "efficientnet_v2_s", "convnext_tiny")
ARCHITECTURES = (*RESNETS, *VGGS, *BEYOND_VGG_AND_RESNET)

STRATEGIES = ("feature_extraction", "last_layers", "full", "scratch")
DEFAULT_STRATEGIES = ("feature_extraction", "last_layers", "full")

AUGMENTATION_PRESETS = ("none", "standard", "strong")
SPLITS = ("train", "val", "test")
_SPLIT_WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
SPLIT_ALIASES = {word: split for split, words in _SPLIT_WORDS.items() for word in words}
"""What folders and columns call the splits."""
_NOTHING_SAID = re.compile(r"\d{4}|0\d|seg|sets?|split|data|dataset|images?|imgs?|")
"""Words beside it that change nothing: `train2017`, `01_train`, `seg_train`, `test_images`."""


def split_of(name: str) -> str | None:
    """Return the split that a folder or a cell names, whatever its case and separators: `Training Set`, `val2017`.

    Args:
        name: As it stands there.

    Returns:
        train, val or test; None where it names none.
    """
    words = re.split(r"[\W_]+|(?<=[^\W\d])(?=\d)|(?<=\d)(?=[^\W\d])", unicodedata.normalize("NFKC", name).casefold())
    left = [word for word in words if not _NOTHING_SAID.fullmatch(word)]
    return SPLIT_ALIASES.get(left[0].removesuffix("set")) if len(left) == 1 else None


ON_BAD_IMAGE = ("skip", "fail")
NEAR_DUPLICATES = ("group", "tell", "off")
CACHE_MODES = ("disk", "none")
PRECISIONS = ("auto", "fp32", "bf16")
OPTIMIZERS = ("sgd", "adamw")
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
"""What a comparison may choose by, rank by and test."""
LOWER_IS_BETTER = frozenset({"log_loss"})
METRIC_WORDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "log_loss": "log-loss",
}
CLASS_WEIGHTS = ("none", "balanced")
KEEP = ("chosen", "all")
NO_VALUE = "-"
"""In tables, where there is no figure."""
EDGE_NOTE = "* at the edge of the rates tried: a rate beyond it may do better (--lr-candidates)."
MIN_SEEDS = 3
"""Seeds an arm needs before anything is said of training again: two leave one degree of freedom."""
FEW_SEEDS_NOTE = (
    f"With fewer than {MIN_SEEDS} seeds the limits are of these trained models: "
    "what training again brings is not in them."
)
FEWEST_RATES = 2
TWO_RATES_NOTE = "Two rates were tried in each arm; one beyond them may do better (--lr-candidates)."
"""Of two rates each is at the edge: a star on all of them would tell nothing."""
