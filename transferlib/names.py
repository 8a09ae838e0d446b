"""Names that the command line offers; plain data, so that `--help` imports nothing heavy."""

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
ARCHITECTURES = (*RESNETS, *VGGS)

STRATEGIES = ("feature_extraction", "last_layers", "full", "scratch")
DEFAULT_STRATEGIES = ("feature_extraction", "last_layers", "full")

AUGMENTATION_PRESETS = ("none", "standard", "strong")
SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
ON_BAD_IMAGE = ("skip", "fail")
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
FEWEST_RATES = 2
TWO_RATES_NOTE = "Two rates were tried in each arm; one beyond them may do better (--lr-candidates)."
"""Of two rates each is at the edge: a star on all of them would tell nothing."""
