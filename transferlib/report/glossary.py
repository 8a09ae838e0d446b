"""The words of the report, each explained where it first stands."""

from __future__ import annotations

import re
from typing import NamedTuple


class Term(NamedTuple):
    """Hold a word and what it means."""

    word: str
    meaning: str


_TERMS = {
    r"\barms?\b|\w+-(feature_extraction|last_layers|full|scratch)\b": Term(
        "Arm",
        "one network trained with one strategy, such as resnet18-full. feature_extraction trains a new classifier on "
        "frozen features, last_layers the last layers too, full everything, early layers more slowly; scratch begins "
        "from random weights.",
    ),
    r"\bseeds?\b": Term(
        "Seed",
        "a number that fixes what chance decides in a training: the new head's first weights, the order of the images, "
        "their augmentation (and, with folds, how images are cut). Each arm was trained once a seed, with folds once "
        "for each fold of a seed.",
    ),
    r"\bpoints?\b": Term("Points", "hundredths of the metric: from 0.90 to 0.92 are 2 points."),
    r"trained again|training again": Term(
        "If trained again",
        "with other seeds and other test images, on these training images. Another set of training images may do "
        "otherwise.",
    ),
    r"other training images": Term(
        "With other training images",
        "with other training and test images of the same kind, as far as differences between the folds tell "
        "(Nadeau and Bengio 2003).",
    ),
    r"\bmargin\b": Term("Margin", "so much worse still counts as good enough; fixed before the run (--margin)."),
    r"\bto \d": Term("0.90 (0.85 to 0.94)", "0.90 was measured; it is uncertain, and 95 % limits are in brackets."),
    r"\bpairs\b.*\bp = |\bp over all pairs\b": Term(
        "p over all pairs",
        "how often arms that are alike would differ by as much somewhere; below 0.05 two arms are told apart.",
    ),
    r"\bvalidation\b": Term(
        "Validation, test",
        "images that a training did not see. Validation chose its rate and the model; test measures what was chosen. "
        "With folds each image is in turn for training, for validation and for test.",
    ),
    r"macro-F1": Term("Macro-F1", "mean over classes of F1, so that a rare class counts as much as a frequent one."),
    r"balanced accuracy|\bbalanced\b": Term(
        "Balanced accuracy", "mean over classes of the share found, however many images a class has."
    ),
    r"top-5": Term("Top-5", "share of images whose class is among the model's five likeliest."),
    r"log-loss": Term(
        "Log-loss", "minus the logarithm of the probability given to the true class; lower is better, and 0 is perfect."
    ),
    r"\bECE\b": Term(
        "ECE",
        "expected calibration error: how far confidence and the share that is right lie apart, on average; 0 is best.",
    ),
    r"[GTP]FLOP|\boperations\b": Term(
        "Operations",
        "multiplications and additions of one training, counted, not clocked: the same on every machine "
        "(1 TFLOP = 10¹²).",
    ),
    r"\bdominated\b": Term("Dominated", "another arm is at least as good for at most as many operations."),
    r"\bPrecision\b": Term(
        "Precision, recall, F1",
        "of what the model calls so, the share that is; of what is so, the share that it finds; and the harmonic mean "
        "of both.",
    ),
    r"[Tt]emperature": Term(
        "Temperature",
        "divides the logits before softmax. Above 1 it makes a model less sure, below 1 surer; its answers stay.",
    ),
}


class Glossary:
    """Hand out each term once: where its word first stands."""

    def __init__(self) -> None:
        self._left = dict(_TERMS)

    def first(self, text: str) -> list[Term]:
        """Return the terms that a text uses and no text before it did.

        Args:
            text: Of one section, without markup.
        """
        found = [pattern for pattern in self._left if re.search(pattern, text)]
        return [self._left.pop(pattern) for pattern in found]
