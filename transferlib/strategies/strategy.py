"""What a strategy is: a name, whether it starts from source weights, and a factor of the head's rate for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from transferlib.spec import StrategySpec

FROZEN = 0.0
"""The factor of a stage that is not trained."""


class Strategy(Protocol):
    """Decide what is trained, and how fast beside the head."""

    name: ClassVar[str]
    """As in the spec and in an arm's name."""
    uses_source: ClassVar[bool]
    """Whether the backbone starts from the source weights; False: from the seed, on purpose."""

    def stage_factors(self, stages: Sequence[str], spec: StrategySpec) -> dict[str, float]:
        """Return each stage's rate as a factor of the head's; 0.0 is frozen.

        Args:
            stages: Names in order, input first, head last.
            spec: The strategies' settings.

        Raises:
            SpecError: A setting does not fit these stages.
        """
        ...
