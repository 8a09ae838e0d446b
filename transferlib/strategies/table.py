"""The table of what a strategy trains: parameters and rate by stage, for `submit plan`. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transferlib.models.backbones import stage_names
from transferlib.models.sizes import stage_sizes
from transferlib.spec import StrategySpec
from transferlib.strategies import get_strategy


@dataclass(frozen=True)
class StageRow:
    """Say of one stage how large it is and how it is trained."""

    stage: str
    parameters: int
    """All of its weights, biases, scales and shifts."""
    trained: int
    """Those that are trained: all or none."""
    lr: float
    """Peak rate; 0.0 when frozen."""


def strategy_table(
    architecture: str, strategy: str, num_classes: int, lr: float, spec: StrategySpec
) -> tuple[StageRow, ...]:
    """Return one row a stage, input to head.

    Args:
        architecture: torchvision's name.
        strategy: A strategy's name.
        num_classes: Outputs of the head (K).
        lr: The head's peak rate.
        spec: The strategies' settings.
    """
    factors = get_strategy(strategy).stage_factors(stage_names(architecture), spec)
    return tuple(
        StageRow(stage, size.parameters, size.parameters if factors[stage] else 0, factors[stage] * lr)
        for stage, size in stage_sizes(architecture, num_classes).items()
    )


def format_strategy_table(architecture: str, strategy: str, rows: Sequence[StageRow]) -> str:
    """Return the table as text: a title, a head line, one line a stage and the sum.

    Args:
        architecture: torchvision's name, for the title.
        strategy: The strategy's name, for the title.
        rows: What `strategy_table` returned.
    """
    trained, parameters = sum(row.trained for row in rows), sum(row.parameters for row in rows)
    lines = [
        f"{architecture}, {strategy}: {trained:,} of {parameters:,} parameters trained",
        f"  {'stage':<16}{'parameters':>13}{'trained':>13}{'peak rate':>12}",
    ]
    for row in rows:
        rate = f"{row.lr:.3g}" if row.trained else "frozen"
        lines.append(f"  {row.stage:<16}{row.parameters:>13,}{row.trained:>13,}{rate:>12}")
    return "\n".join(lines)
