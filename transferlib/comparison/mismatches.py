"""What differs between a file and what it should be: compared value by value, named by where it stands."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from transferlib.errors import TransferlibError
from transferlib.runs import read_json

REL_TOL, ABS_TOL = 1e-9, 1e-12
"""Another processor, or another build of numpy, may round the last digits of a sum differently."""
DAMAGE = (
    *(TransferlibError, OSError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError),
    *(RecursionError, OverflowError),
)
"""What reading a damaged file ends in; pyarrow's errors are kinds of these."""
LONG_TEXT = 80
"""Characters; of longer ones the part that differs is shown."""
NAMES = ("trial_id", "arm", "seed")
"""Keys that name an entry of a list."""


@dataclass(frozen=True)
class Mismatch:
    """Say what in a run does not follow from its sources."""

    file: str
    """Relative to the run folder."""
    place: str
    """Which figure, row or line; empty: the whole file."""
    problem: str

    def __str__(self) -> str:
        return f"{self.file}{f', {self.place}' if self.place else ''}: {self.problem}."


@dataclass
class Verification:
    """Collect what was held against each other."""

    num_figures: int = 0
    """Values that were compared, words among them."""
    mismatches: list[Mismatch] = field(default_factory=list)

    def compare(self, file: str, place: str, says: Any, should_be: Any) -> None:
        """Compare two values of any depth: numbers to their last digits but a few, everything else exactly."""
        if isinstance(says, Mapping) and isinstance(should_be, Mapping):
            for key in [*should_be, *(key for key in says if key not in should_be)]:
                below = f"{place}.{key}" if place else str(key)
                if key not in says:
                    self.mismatches.append(Mismatch(file, below, f"is missing, should be {_shown(should_be[key])}"))
                elif key not in should_be:
                    self.mismatches.append(Mismatch(file, below, f"says {_shown(says[key])}, should not be there"))
                else:
                    self.compare(file, below, says[key], should_be[key])
        elif isinstance(says, list) and isinstance(should_be, list):
            if len(says) != len(should_be):
                problem = f"has {len(says)} entries, should have {len(should_be)}"
                self.mismatches.append(Mismatch(file, place, problem))
            for number, (one, other) in enumerate(zip(says, should_be, strict=False)):
                self.compare(file, f"{place}[{_entry_name(other, number)}]", one, other)
        else:
            self.num_figures += 1
            if not _is_same(says, should_be):
                one, other = _cut_to_difference(says, should_be)
                problem = f"says {_shown(one)}, should be {_shown(other)}"
                self.mismatches.append(Mismatch(file, place, problem))

    def add(self, file: str, problem: str, place: str = "") -> None:
        """Note what is wrong with a file."""
        self.mismatches.append(Mismatch(file, place, problem.rstrip(".")))


def read_damaged_json(path: Path, verification: Verification) -> Any:
    """Return what a file holds; None where it is missing or no JSON, which is then noted.

    Args:
        path: In the run folder.
        verification: To note it in.
    """
    try:
        plain = read_json(path)
    except (OSError, ValueError) as error:
        verification.add(path.name, f"cannot be read: {sentence_of(error)}")
        return None
    if plain is None:
        verification.add(path.name, "is missing")
    return plain


def read_damaged_text(path: Path, verification: Verification) -> str | None:
    """Return the text of a file; None where it is missing or no text, which is then noted.

    Args:
        path: In the run folder.
        verification: To note it in.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        verification.add(path.name, f"cannot be read: {sentence_of(error)}" if path.exists() else "is missing")
        return None


def compare_lines(says: str, should_be: str, file: str, verification: Verification, unit: str = "line") -> None:
    """Compare two texts line by line.

    Args:
        says: Text of the file.
        should_be: What it should be.
        file: Its name.
        verification: To note differences in.
        unit: What a line is called.
    """
    for number, (one, other) in enumerate(zip_longest(says.split("\n"), should_be.split("\n")), start=1):
        verification.compare(file, f"{unit} {number}", one, other)


def sentence_of(error: Exception) -> str:
    """Return an error as one line, with its kind where its words are not ours."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, TransferlibError) else f"{type(error).__name__}: {text}"


def _is_same(says: Any, should_be: Any) -> bool:
    is_number = [isinstance(value, int | float) and not isinstance(value, bool) for value in (says, should_be)]
    if not all(is_number):
        return bool(says == should_be) and type(says) is type(should_be)
    if isinstance(says, int) and isinstance(should_be, int):
        return says == should_be
    return math.isclose(says, should_be, rel_tol=REL_TOL, abs_tol=ABS_TOL) or (says != says and should_be != should_be)


def _entry_name(value: Any, number: int) -> str:
    """Return what an entry of a list is called: by what names it, else by its number."""
    if isinstance(value, Mapping):
        if "a" in value and "b" in value:
            return f"{value['a']} - {value['b']}"
        for name in NAMES:
            if name in value:
                return str(value[name])
    return str(number)


def _cut_to_difference(says: Any, should_be: Any) -> tuple[Any, Any]:
    """Return two texts, where they are long, around the place from which on they differ."""
    if not isinstance(says, str) or not isinstance(should_be, str) or max(len(says), len(should_be)) <= LONG_TEXT:
        return says, should_be
    shorter = min(len(says), len(should_be))
    alike = next((place for place in range(shorter) if says[place] != should_be[place]), shorter)
    begin = max(alike - LONG_TEXT // 4, 0)
    ends = [
        text[begin : begin + LONG_TEXT] + ("..." if len(text) > begin + LONG_TEXT else "") for text in (says, should_be)
    ]
    before = "..." if begin else ""
    return before + ends[0], before + ends[1]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value)
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
