"""Full fine-tuning: all stages, each at a factor of the next one's rate (discriminative rates).

Source: Howard and Ruder, Universal Language Model Fine-tuning for Text Classification (2018), section 3.2: they divide
by 2.6 from one layer to the one below, which is our default factor of 0.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from transferlib.spec import StrategySpec


class Full:
    """Train every stage, the slower the nearer it is to the input."""

    name: ClassVar[str] = "full"
    uses_source: ClassVar[bool] = True

    def stage_factors(self, stages: Sequence[str], spec: StrategySpec) -> dict[str, float]:
        last = len(stages) - 1
        return {stage: spec.stage_lr_factor ** (last - index) for index, stage in enumerate(stages)}
