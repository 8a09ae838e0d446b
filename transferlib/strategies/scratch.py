"""From scratch: the same network without the source, as a control. What transfer gains is what it gains over this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from transferlib.spec import StrategySpec


class Scratch:
    """Train every stage from random weights at one rate."""

    name: ClassVar[str] = "scratch"
    uses_source: ClassVar[bool] = False

    def stage_factors(self, stages: Sequence[str], spec: StrategySpec) -> dict[str, float]:
        return dict.fromkeys(stages, 1.0)
