"""The ways of transferring: which stages each one trains, at which part of the head's rate, and around which rate.

A strategy is a small file that answers with one factor a stage; everything else (rates, tables, freezing, optimizer
groups) follows from the factors. Loads no torch, `freezing` apart.
"""

from __future__ import annotations

from transferlib.errors import SpecError, unknown_name
from transferlib.strategies.feature_extraction import FeatureExtraction
from transferlib.strategies.full import Full
from transferlib.strategies.last_layers import LastLayers
from transferlib.strategies.rates import base_lr, lr_candidates
from transferlib.strategies.scratch import Scratch
from transferlib.strategies.strategy import Strategy

__all__ = ["Strategy", "base_lr", "get_strategy", "lr_candidates"]

_STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (FeatureExtraction(), LastLayers(), Full(), Scratch())
}


def get_strategy(name: str) -> Strategy:
    """Return a strategy by name.

    Raises:
        SpecError: There is none of that name; the text has the nearest one and all of them.
    """
    if name not in _STRATEGIES:
        raise SpecError(unknown_name("strategy", name, _STRATEGIES))
    return _STRATEGIES[name]
