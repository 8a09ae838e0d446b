"""Last layers: the classifier and the last stages before it, at one rate.

VGG's fc6 and fc7 are one stage, the last before the head: with the default of one stage they are what is trained beside
the head; with two, the last block of convolutions is trained too. Of EfficientNet and ConvNeXt the last stage takes in
all between its blocks and the head's Linear: the last convolution, or the norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from transferlib.errors import SpecError
from transferlib.spec import StrategySpec
from transferlib.strategies.strategy import FROZEN


class LastLayers:
    """Train the head and the last `last_stages` stages."""

    name: ClassVar[str] = "last_layers"
    uses_source: ClassVar[bool] = True

    def stage_factors(self, stages: Sequence[str], spec: StrategySpec) -> dict[str, float]:
        num_frozen = len(stages) - 1 - spec.last_stages
        if num_frozen < 0:
            raise SpecError(
                f"strategies.last_stages {spec.last_stages}: there are {len(stages) - 1} stages before the head "
                f"({', '.join(stages[:-1])}). Use at most {len(stages) - 1}."
            )
        return {stage: FROZEN if index < num_frozen else 1.0 for index, stage in enumerate(stages)}
