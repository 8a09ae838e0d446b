"""Numbers as a reader wants them."""

from __future__ import annotations

import time
from collections.abc import Callable

from markupsafe import Markup

from transferlib.comparison.arms import Figure
from transferlib.comparison.statistics import Interval
from transferlib.report.cost import operations_text
from transferlib.words import listed, spelled


def seconds_text(seconds: float) -> str:
    """Return a duration as `9.2 s`, `3 min 05 s` or `2 h 07 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def bytes_text(count: int) -> str:
    """Return a size as `980 MiB` or `1.2 GiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def parameters_text(count: int) -> str:
    """Return a number of parameters as `8.4 M` or `2,052`."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"


def rate_text(rate: float) -> str:
    """Return a learning rate with three digits."""
    return f"{rate:.3g}"


def breakable(name: str) -> Markup:
    """Return a name that a browser may break after `_`, so that a narrow column stays narrow."""
    return Markup("_<wbr>").join(name.split("_"))


def figure_markup(figure: Figure | Interval | None, digits: int = 3) -> Markup:
    """Return a value with its limits set smaller, `0.953 (0.931 to 0.968)`; `-` without one."""
    if figure is None:
        return Markup("-")
    value = figure.mean if isinstance(figure, Figure) else figure.value
    if figure.low is None or figure.high is None:
        return Markup(f"{value:.{digits}f}")
    limits = f"({figure.low:.{digits}f} to {figure.high:.{digits}f})"
    return Markup("{} <small>{}</small>").format(f"{value:.{digits}f}", limits)


def sure_text(confidence: float) -> str:
    """Return how sure a model is, never `100 %`: a softmax is not."""
    return "over 99 % sure" if confidence > 0.995 else f"{100 * confidence:.0f} % sure"


def title_first(text: str) -> str:
    """Return a text with its first letter large, the others as they are."""
    return text[:1].upper() + text[1:]


def date_text(run_id: str) -> str:
    """Return the UTC time that a run id begins with; empty where it begins with none."""
    try:
        return time.strftime("%d %B %Y, %H:%M UTC", time.strptime(run_id[:15], "%Y%m%d-%H%M%S")).lstrip("0")
    except ValueError:
        return ""


FILTERS: dict[str, Callable[..., str]] = {
    "seconds": seconds_text,
    "bytes": bytes_text,
    "parameters": parameters_text,
    "rate": rate_text,
    "count": spelled,
    "listed": listed,
    "figure": figure_markup,
    "sure": sure_text,
    "operations": operations_text,
    "breakable": breakable,
    "title_first": title_first,
}
"""Of the template."""
