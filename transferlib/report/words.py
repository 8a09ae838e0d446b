"""Numbers as a reader wants them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from transferlib.comparison.arms import Spread
from transferlib.comparison.tables import spread_text

_SMALL_NUMBERS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


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


def count_text(count: int, noun: str) -> str:
    """Return `one arm`, `three arms`, `27 trials`."""
    number = _SMALL_NUMBERS[count] if count < len(_SMALL_NUMBERS) else f"{count:,}"
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"


def listed(names: Sequence[Any]) -> str:
    """Return `a, b and c`."""
    words = [str(name) for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def breakable(name: str) -> Markup:
    """Return a name that a browser may break after `_`, so that a narrow column stays narrow."""
    return Markup("_<wbr>").join(name.split("_"))


def spread_markup(spread: Spread | None) -> Markup:
    """Return a mean with its spread set smaller."""
    mean, sign, std = spread_text(spread).partition(" ± ")
    return Markup("{}<small> ± {}</small>").format(mean, std) if sign else Markup("{}").format(mean)


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
    "count": count_text,
    "listed": listed,
    "spread": spread_markup,
    "breakable": breakable,
}
"""Of the template."""
