"""Feature extraction: a new classifier on the source's frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from transferlib.spec import StrategySpec
from transferlib.strategies.strategy import FROZEN


class FeatureExtraction:
    """Train the head only."""

    name: ClassVar[str] = "feature_extraction"
    uses_source: ClassVar[bool] = True

    def stage_factors(self, stages: Sequence[str], spec: StrategySpec) -> dict[str, float]:
        return {**dict.fromkeys(stages[:-1], FROZEN), stages[-1]: 1.0}
