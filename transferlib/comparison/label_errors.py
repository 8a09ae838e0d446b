"""Test images whose label may be wrong: every trained model says the same, and it is not what the label says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transferlib.comparison.choose import Choice
from transferlib.comparison.results import RunResults

MIN_MODELS = 2
"""One model that errs says nothing of the label."""


@dataclass(frozen=True)
class SuspectedLabel:
    """Name a test image to look at, because all models agree on another class than its label."""

    image_id: str
    label: str
    """What the data says it is."""
    says: str
    """What every model says it is."""
    num_models: int
    """How many say so: the chosen trials of all arms and seeds; where there are folds, those that did not train on
    it."""
    mean_confidence: float
    """Mean over the models of their confidence in that, 0 to 1."""


def suspected_labels(found: RunResults, choice: Choice) -> tuple[SuspectedLabel, ...]:
    """Return the test images that the chosen trials of all arms and seeds get wrong alike, the surest first.

    Models that share photographs and source weights share some of their mistakes too, so this is a list to look at,
    not one to correct by: a label changed because models disagree with it makes the test set agree with them.

    Args:
        found: The trials and their scores; only those that have read the test set count.
        choice: On validation.

    Returns:
        Empty with fewer than two models.

    Source: Northcutt et al. 2021, Pervasive Label Errors in Test Sets Destabilize Machine Learning Benchmarks (models'
    disagreement with the label as what to look at; here of all models at once, in place of one model's calibration).
    """
    arms = dict.fromkeys(trial.arm for trial in choice.chosen)
    by_arm = [found.by_seed([trial for trial in choice.chosen if trial.arm == arm], "test") for arm in arms]
    scores = [score for by_seed in by_arm for score in by_seed.values() if len(score.predicted)]
    if len(scores) < MIN_MODELS:
        return ()
    images, says = found.splits["test"], scores[0].predicted
    is_alike, confidence = says != images.labels, np.zeros(len(says))
    for score in scores:
        is_alike &= score.predicted == says
        confidence += score.confidence / len(scores)
    suspected = [
        SuspectedLabel(
            image_id=images.image_ids[row],
            label=found.classes[images.labels[row]],
            says=found.classes[says[row]],
            num_models=len(scores),
            mean_confidence=float(confidence[row]),
        )
        for row in np.flatnonzero(is_alike).tolist()
    ]
    return tuple(sorted(suspected, key=lambda label: (-label.mean_confidence, label.image_id)))
