"""Which value of a deep picture is black and which is white: one range for all images of a data set.

Deep is what has more than 8 bits a sample, signs or fractions. Each such file says what it declares and how bright its
pixels are, as a few counts (`DepthFacts`); from those of all training images comes the range (`settle_range`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Literal, get_args

from transferlib.words import count

Range = tuple[float, float]
"""The values that become black and white."""
Kind = Literal["whole", "fraction"]
"""Whole numbers and fractions are of no common scale: each kind has its own range."""
KINDS: tuple[Kind, ...] = get_args(Kind)

DARKEST = -1001
"""The level of values that are not above 0."""
LEVELS = (-1000, 1000)
"""Of those that are, lowest and highest: beyond them, 255 over a range or a difference of two is no number any more."""
SHARE = (9_999, 10_000)
"""Of the pixels that white is not below: a hot pixel, dust or a burnt-in mark moves nothing. Of images with fewer than
10,000 pixels one each may be above it, since a sensor's hot pixel is in all of them."""
CONTAINERS = frozenset({16, 32, 64})
"""Bits a sample that say nothing: 10, 12 and 14 bits are stored in 16."""
_COUNTS_FROM_LEVEL = 8
"""From 129 on a float is taken for a count (255 is white, not 256)."""


@dataclass(frozen=True)
class DepthFacts:
    """Hold what one file says of its scale."""

    kind: Kind
    brightest: tuple[tuple[int, int], ...]
    """(level, pixels): how many pixels' brightest colour is of each level, see `full_scale`; ascending."""
    darkest: tuple[tuple[int, int], ...] = ()
    """(level, pixels): how many pixels' darkest colour is at or above -2 ** level and below 0; ascending."""
    bits: int = 0
    """That the format declares of a sample; 0: none, or as many as a container has."""
    significant: int = 0
    """Bits that a PNG's sBIT chunk declares; 0: none."""
    limits: Range | None = None
    """What a TIFF declares as the smallest and largest value (tags 340 and 341)."""

    def to_text(self) -> str:
        """Return it as JSON, for tables that hold text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> DepthFacts:
        """Read what `to_text` wrote."""
        value = json.loads(text)
        for name in ("brightest", "darkest"):
            value[name] = tuple((int(level), int(number)) for level, number in value[name])
        value["limits"] = None if value["limits"] is None else tuple(value["limits"])
        return cls(**value)


@dataclass(frozen=True)
class DepthScale:
    """Hold the ranges of a data set; part of the manifest, of the cached images' keys and of a model's metadata."""

    whole: Range | None = None
    """Of whole numbers; None: the data set has none."""
    fraction: Range | None = None
    """Of fractions; None: as above."""

    @classmethod
    def given(cls, wanted: Range | None) -> DepthScale | None:
        """Return the scale that the user asks for (`--depth-range`), whatever images say; None: none was asked for."""
        return None if wanted is None else cls(wanted, wanted)

    def of(self, kind: Kind) -> Range | None:
        """Return the range of a kind."""
        return self.whole if kind == "whole" else self.fraction

    def cache_keys(self, digest: bytes) -> list[bytes]:
        """Return what a deep picture's pixels are kept under, for each kind that it might be of.

        The range enters the keys of deep pictures alone: the others of a data set are the same under any range.

        Args:
            digest: sha256 of the file, 32 bytes.
        """
        return [key for kind in KINDS if (key := self.cache_key(digest, kind)) is not None]

    def cache_key(self, digest: bytes, kind: Kind) -> bytes | None:
        """Return what a deep picture's pixels are kept under, 32 bytes; None where its kind has no range.

        Args:
            digest: sha256 of the file, 32 bytes.
            kind: Of its numbers.
        """
        found = self.of(kind)
        if found is None:
            return None
        low, high = map(float, found)
        return sha256(digest + f"{kind} {low!r}:{high!r}".encode()).digest()

    def to_plain(self) -> dict[str, list[float]]:
        """Return the ranges by kind, as plain values; a kind without one is left out."""
        return {kind: [_plain(value) for value in found] for kind in KINDS if (found := self.of(kind)) is not None}

    @classmethod
    def from_plain(cls, value: Mapping[str, Sequence[float]] | None) -> DepthScale | None:
        """Read what `to_plain` gave, or null for a data set without deep images.

        Raises:
            TypeError: It is something else.
            ValueError: Likewise.
        """
        if not value:
            return None
        if not set(value) <= set(KINDS):
            raise ValueError(f"ranges of {sorted(value)}; known are {', '.join(KINDS)}")
        ranges = {kind: (float(low), float(high)) for kind, (low, high) in value.items()}
        return cls(ranges.get("whole"), ranges.get("fraction"))

    def __str__(self) -> str:
        names = {"whole": "whole numbers", "fraction": "fractions"}
        said = [(names[kind], found) for kind in KINDS if (found := self.of(kind)) is not None]
        if len({found for _, found in said}) == 1:
            return in_words(said[0][1])
        return ", ".join(f"{in_words(found)} for {name}" for name, found in said)


def in_words(found: Range) -> str:
    """Return a range in words."""
    return f"black is {_plain(found[0]):,}, white {_plain(found[1]):,}"


def full_scale(kind: Kind, level: int) -> float:
    """Return the value that is white where the brightest pixels are of a level: 2^n - 1 of whole numbers.

    So a 16-bit copy of an 8-bit picture looks like it, and 12-bit values in a 16-bit file keep their contrast.
    Fractions up to 1, or to another power of two, end there: 2^n. From 129 on they are taken for counts.

    Args:
        kind: Of the numbers.
        level: n; of a value, the smallest whose full scale is not below it.
    """
    if level <= DARKEST:
        return 0.0
    is_count = level >= (1 if kind == "whole" else _COUNTS_FROM_LEVEL)
    return 2.0**level - is_count


def settle_scale(
    learnt: Sequence[DepthFacts], held_out: Sequence[DepthFacts], given: Range | None
) -> tuple[DepthScale | None, list[str]]:
    """Return the one scale of a data set, whatever the order of its images.

    Args:
        learnt: Of the deep images that models are trained on: they alone say what the range is.
        held_out: Of the others; they count for a kind of number that no training image has.
        given: What the user wants (`--depth-range`); None: what the images say.

    Returns:
        The scale, None without deep images; and sentences for the user.
    """
    every = [*learnt, *held_out]
    if not every:
        unused = f"--depth-range {_plain(given[0])}:{_plain(given[1])} acts on nothing" if given else ""
        return None, [f"{unused}: no image has more than 8 bits a sample."] if unused else []
    ranges: dict[Kind, Range] = {}
    notes: list[str] = []
    for kind in sorted({fact.kind for fact in every}):
        of_kind = [fact for fact in learnt if fact.kind == kind] or held_out
        ranges[kind], said = (given, []) if given else settle_range(kind, of_kind)
        notes += said
    scale = DepthScale(ranges.get("whole"), ranges.get("fraction"))
    which = count(len(every), "image has", "images have")
    why = "as --depth-range says" if given else "by what the training images declare and hold; --depth-range sets it"
    return scale, [f"{which} more than 8 bits a sample: for all of them, {scale} ({why}).", *notes]


def settle_range(kind: Kind, facts: Iterable[DepthFacts]) -> tuple[Range, list[str]]:
    """Return the one range of a data set's pictures of a kind, whatever their order.

    What the files declare counts first: bits a sample; a PNG's significant bits (its values may be stored as they are,
    or stretched over 16 bits as the specification has it: the pixels tell); TIFF's largest value, unless it differs
    from file to file, which makes it a statistic of each. Files that declare nothing are scaled by the 99.99th
    percentile of their pixels' brightest colours (the order statistic at or below it; see SHARE), taken up to a full
    scale. Where several of these hold, the widest does, so that nothing is cut off that a file calls a value.

    Args:
        kind: Of the numbers.
        facts: Of the pictures that count, at least one; others of that kind are passed over.

    Returns:
        The range, and sentences about declarations that disagree.
    """
    of_kind = [fact for fact in facts if fact.kind == kind]
    notes: list[str] = []
    declared = {fact.bits for fact in of_kind if fact.bits}
    limits = {fact.limits for fact in of_kind if fact.limits is not None and not fact.bits}
    if len(declared) > 1:
        named = ", ".join(str(bits) for bits in sorted(declared))
        notes.append(f"Images declare {named} bits a sample; the largest holds for all of them.")
    if len(limits) > 1:
        notes.append("SMaxSampleValue differs from file to file, so it is taken for no scale.")
    agreed = limits.pop() if len(limits) == 1 else None
    ranges = [(0.0, 2.0 ** max(declared) - 1)] if declared else []
    ranges += [agreed] if agreed else []
    significant = [fact for fact in of_kind if fact.significant and not fact.bits]
    if significant:
        bits = max(fact.significant for fact in significant)
        as_stored = 2.0**bits - 1
        ranges.append((0.0, as_stored if _percentile(kind, significant)[1] <= as_stored else 65_535.0))
    silent = [fact for fact in of_kind if not (fact.bits or fact.significant or (agreed and fact.limits))]
    ranges += [_percentile(kind, silent)] if silent else []
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    return (low, high) if low < high else (low, low + 1.0), notes


def _percentile(kind: Kind, facts: Sequence[DepthFacts]) -> Range:
    """Return the full scale that holds all pixels but the outermost ten-thousandth, or one an image, at either end."""
    bright: Counter[int] = Counter()
    dark: Counter[int] = Counter()
    for fact in facts:
        bright.update(dict(fact.brightest))
        dark.update(dict(fact.darkest))
    total = sum(bright.values())
    within = (total - 1) * SHARE[0] // SHARE[1]  # the place among ascending values, as of numpy's "lower"
    outside = min(max(total - 1 - within, len(facts)), total - 1)
    high = full_scale(kind, _level_after(bright, sorted(bright, reverse=True), outside))
    below_zero = sum(dark.values())
    low = -(2.0 ** _level_after(dark, sorted(dark, reverse=True), outside)) if below_zero > outside else 0.0
    return low, high


def _level_after(counts: Mapping[int, int], levels: Sequence[int], place: int) -> int:
    """Return the level of the pixel at a place, from 0, of those in the order of `levels`."""
    passed = 0
    for level in levels:
        passed += counts[level]
        if passed > place:
            break
    return level


def _plain(value: float) -> float:
    return int(value) if value.is_integer() else value
