"""Plots drawn once: a report is rendered in many tests, and matplotlib takes most of its time."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

PLOTS = ("draw_by_seed", "draw_costs", "draw_curves", "draw_confusion", "draw_reliability")


def drawn_once(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that draws for arguments it has not seen, and gives again what it drew for the others."""
    drawn: dict[bytes, Any] = {}

    @wraps(draw)
    def remember(*args: Any, **kwargs: Any) -> Any:
        key = pickle.dumps((args, kwargs))
        if key not in drawn:
            drawn[key] = draw(*args, **kwargs)
        return drawn[key]

    return remember


@pytest.fixture(scope="session")
def remembering_plots() -> dict[tuple[Any, str], Callable[..., Any]]:
    """Return what draws each kind of plot, by the module that calls it and its name there."""
    from transferlib.report import content, figures  # matplotlib takes seconds, which most tests need not wait for

    places = [*((figures, name) for name in PLOTS), (content, "draw_differences")]
    return {(module, name): drawn_once(getattr(module, name)) for module, name in places}


@pytest.fixture
def plots_drawn_once(
    remembering_plots: dict[tuple[Any, str], Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draw a plot of the same figures once a session. Not for tests of the plots themselves."""
    for (module, name), draw in remembering_plots.items():
        monkeypatch.setattr(module, name, draw)
