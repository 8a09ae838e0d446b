"""Reports for tests about other things: the template is compiled once, plots of the same figures are drawn once."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
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


def made_once(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that makes one thing, whatever it is told, and gives it again."""
    made: list[Any] = []

    def again(**kwargs: Any) -> Any:
        if not made:
            made.append(make(**kwargs))
        return made[0]

    return again


@pytest.fixture(scope="session")
def remembering_makers() -> dict[tuple[Any, str], Callable[..., Any]]:
    """Return what makes the costly parts of a report, by the module that calls it and its name there."""
    # Here, since matplotlib takes seconds to import, for which most tests need not wait.
    from transferlib.report import content, figures, html

    places = [*((figures, name) for name in PLOTS), (content, "draw_differences")]
    makers = {(module, name): drawn_once(getattr(module, name)) for module, name in places}
    return {**makers, (html, "Environment"): made_once(html.Environment)}


@pytest.fixture(scope="module")
def quick_reports(remembering_makers: dict[tuple[Any, str], Callable[..., Any]]) -> Iterator[None]:
    """Make reports in a third of the time. Not for tests of plots, nor of one report being as another."""
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), maker in remembering_makers.items():
            patch.setattr(module, name, maker)
        yield
