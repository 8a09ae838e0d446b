"""Quantities as words: bytes, durations, counts, lists. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Sequence

SPARKS = "▁▂▃▄▅▆▇█"
ASCII_SPARKS = "_.:-=+*#"

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
"""What steers a terminal: colours (CSI), titles and links (OSC), and the short ones."""


def without_escapes(text: str) -> str:
    """Return a text without what would colour a terminal."""
    return ESCAPES.sub("", text)


def shortened(text: str, width: int, mark: str = "…") -> str:
    """Return a text with its middle cut out where it is longer than a width: names often differ at their ends.

    Args:
        text: A line.
        width: Characters, at least 3.
        mark: What stands for the middle, one character.
    """
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}{mark}{text[-tail:]}"


def size(num_bytes: float) -> str:
    """Return bytes as `13.8 GB` (decimal, as disks are sold)."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            value = num_bytes / factor
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def duration(seconds: float) -> str:
    """Return seconds as `45 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def ago(seconds: float) -> str:
    """Return how long ago something was: `just now`, `3 min ago`, `2 days ago`."""
    if seconds < 5:
        return "just now"
    if seconds < 36 * 3600:
        return f"{duration(seconds)} ago"
    return f"{seconds / 86400:.0f} days ago"


def clock(seconds: float) -> str:
    """Return seconds as `0:45`, `12:03` or `3:04:05`."""
    whole = round(max(0.0, seconds))
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def form(number: float, one: str, many: str = "") -> str:
    """Return the word that goes with a number: `trial` or `trials`, `has` or `have`.

    Args:
        number: How many.
        one: With 1.
        many: With all others; empty: the same with an s, or with es after an s.
    """
    return one if number == 1 else many or f"{one}{'es' if one.endswith('s') else 's'}"


def count(number: int, one: str, many: str = "") -> str:
    """Return `1 trial` or `54 trials`; arguments as of `form`."""
    return f"{number:,} {form(number, one, many)}"


def spelled(number: int, one: str, many: str = "") -> str:
    """Return `no arms`, `one arm`, `three arms` or `27 trials`; arguments as of `form`."""
    return f"{NUMBERS[number] if number < len(NUMBERS) else f'{number:,}'} {form(number, one, many)}"


def listed(items: Sequence[object]) -> str:
    """Return `a`, `a and b` or `a, b and c`; empty for nothing."""
    texts = [str(item) for item in items]
    return " and ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)


def some(items: Sequence[object], most: int) -> str:
    """Return `a, b`, or the first of more items and how many follow: `a, b and 4 more`."""
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(str(item) for item in items[:most]) + rest


def first_of(lines: Sequence[str], noun: str, most: int = 10) -> list[str]:
    """Return the first lines, and how many more there are: `... and 290 more classes.`

    Args:
        lines: One each.
        noun: What each is of, in the plural.
        most: How many are shown.
    """
    return [*lines[:most], *([f"... and {len(lines) - most:,} more {noun}."] if len(lines) > most else [])]


def sparkline(values: Sequence[float], low: float, high: float, width: int, *, is_ascii: bool = False) -> str:
    """Return values as a line of blocks; more values than fit are thinned out, the last one kept.

    Args:
        values: In order.
        low: Drawn as the lowest block.
        high: Drawn as the highest.
        width: Most characters.
        is_ascii: For terminals without block characters.
    """
    blocks = ASCII_SPARKS if is_ascii else SPARKS
    if len(values) > width:
        values = [values[(index + 1) * len(values) // width - 1] for index in range(width)]
    span = high - low
    top = len(blocks) - 1
    return "".join(blocks[top if span <= 0 else round(top * (value - low) / span)] for value in values)
