"""Reading the parameters of an augmentation step: each asked for by name, every mistake collected.

The shapes are torchvision's: one number or a pair for a range, one int or a pair for a size, one number or three for a
colour. A wrong value is noted and its default handed out, so that all mistakes come out at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transferlib.data.draws import Fill
from transferlib.errors import unknown_name

Span = tuple[float, float]
Size = tuple[int, int]


class Parameters:
    """Hand out a step's parameters and note what is wrong with them.

    Args:
        where: What to call the step in a message, e.g. "augmentation step 2, RandomRotation".
        given: The parameters as the spec has them; null stands for the default.
    """

    def __init__(self, where: str, given: Mapping[str, Any]) -> None:
        self.problems: list[str] = []
        self._where = where
        self._given = given
        self._asked: set[str] = set()

    def refuse(self, name: str, allowed: str) -> None:
        """Note that `name` is not what is allowed."""
        seen = f"is {self._given[name]!r}" if name in self._given else "is missing"
        self.problems.append(f"{self._where}: {name} {seen}; it must be {allowed}.")

    def finish(self) -> None:
        """Note every parameter that nobody asked for."""
        for name in self._given:
            if name not in self._asked:
                self.problems.append(f"{self._where}: {unknown_name('parameter', str(name), self._asked)}")

    def value(self, name: str) -> Any:
        """Return what was given, None where nothing was."""
        self._asked.add(name)
        return self._given.get(name)

    def only(self, name: str, allowed: object, why: str) -> None:
        """Accept one value alone, for a parameter that torchvision has and we cannot vary."""
        if self.value(name) not in (None, allowed):
            self.refuse(name, f"{allowed!r} ({why}), or left out")

    def probability(self, name: str, default: float) -> float:
        """Return a number from 0 to 1."""
        value = self.value(name)
        if value is None:
            return default
        if not _is_number(value) or not 0 <= value <= 1:
            self.refuse(name, "a number from 0 to 1")
            return default
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
            return default
        return value

    def span(self, name: str, default: Span, low: float, high: float = math.inf, *, is_one_fine: bool = False) -> Span:
        """Return two numbers in increasing order, within `low` to `high`; where one is fine it stands for both."""
        value = self.value(name)
        if value is None:
            return default
        numbers = (value, value) if is_one_fine and _is_number(value) else _numbers(value)
        if numbers is None or len(numbers) != 2 or not low <= numbers[0] <= numbers[1] <= high:
            self.refuse(name, f"two numbers in increasing order {_bounds(low, high)}")
            return default
        return (numbers[0], numbers[1])

    def reach(self, name: str, center: float, low: float, high: float = math.inf, *, is_required: bool = False) -> Span:
        """Return a range given as two numbers, or as one: how far it reaches to both sides of `center`.

        Args:
            name: The parameter.
            center: Where a range given as one number lies; what is handed out where nothing is given.
            low: Lower bound. With no upper one, a range given as one number is cut there, as ColorJitter does.
            high: Upper bound.
            is_required: Whether leaving it out is a mistake.
        """
        value = self.value(name)
        numbers = _numbers(value)
        if _is_number(value) and value >= 0:
            start = center - value
            numbers = (max(start, low) if math.isinf(high) else start, center + value)
        elif value is None and not is_required:
            return (center, center)
        if numbers is None or len(numbers) != 2 or not low <= numbers[0] <= numbers[1] <= high:
            self.refuse(name, f"a number from 0 on, or two in increasing order {_bounds(low, high)}")
            return (center, center)
        return (numbers[0], numbers[1])

    def size(self, name: str, default: Size | None) -> Size:
        """Return height, width from an int (a square) or two; None as `default` makes it required."""
        value = self.value(name)
        if value is None and default is not None:
            return default
        sides = [value] if _is_integer(value) else value
        if not isinstance(sides, list | tuple) or len(sides) not in (1, 2) or not all(map(_is_positive, sides)):
            self.refuse(name, "a whole number of pixels from 1 on, or two (height, width)")
            return default or (1, 1)
        return (int(sides[0]), int(sides[-1]))

    def fill(self, name: str, default: Fill = (0, 0, 0)) -> Fill:
        """Return a colour from one number or three (red, green, blue), 0 to 255."""
        value = self.value(name)
        if value is None:
            return default
        numbers = (value,) * 3 if _is_number(value) else _numbers(value)
        numbers = numbers * 3 if numbers is not None and len(numbers) == 1 else numbers
        if numbers is None or len(numbers) != 3 or not all(0 <= n <= 255 for n in numbers):
            self.refuse(name, "a number from 0 to 255, or three (red, green, blue)")
            return default
        red, green, blue = (round(n) for n in numbers)
        return (red, green, blue)

    def point(self, name: str) -> Span | None:
        """Return two numbers (x, y), None where nothing is given."""
        value = self.value(name)
        numbers = _numbers(value)
        if value is not None and (numbers is None or len(numbers) != 2):
            self.refuse(name, "two numbers (x, y)")
            return None
        return None if numbers is None else (numbers[0], numbers[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return _is_integer(value) and value > 0


def _numbers(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list | tuple) or not all(map(_is_number, value)):
        return None
    return tuple(float(n) for n in value)


def _bounds(low: float, high: float) -> str:
    return f"from {low:g} on" if math.isinf(high) else f"from {low:g} to {high:g}"
