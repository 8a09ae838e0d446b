"""Who is on which side: seeded hash thresholds over what must stay together, given splits first.

What must stay together is a *component*: images joined by a group or by the same content. Its place is a number in
[0, 1) from hash(seed, component); test is below the first threshold, val below the second, train above. So a place
depends on nothing else: not on the other images, their order, or the machine.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transferlib.data.components import Components, find_components
from transferlib.data.listing import SplitRoles
from transferlib.errors import DataError
from transferlib.names import SPLITS

TRAIN, VAL, TEST = range(3)
OUT = -1
_KEEPS_FIRST = {TEST: 0, VAL: 1, TRAIN: 2}
"""A photo in two given splits stays in the one that figures are taken from."""


@dataclass(frozen=True)
class Candidates:
    """Hold the images that decode, N of them."""

    image_ids: Sequence[str]
    sha256: Sequence[str]
    labels: Sequence[str]
    groups: Sequence[str | None]
    given: Sequence[str | None]
    """train, val, test or None."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """Say for each candidate where it is, or why it is out."""

    splits: npt.NDArray[np.int8]
    """[N], index into `names.SPLITS`; -1: out."""
    statuses: list[str]
    """used, duplicate or label_conflict."""
    reasons: list[str]
    """Empty for used."""


def assign_splits(
    candidates: Candidates, roles: SplitRoles, *, classes: Sequence[str], val: float, test: float, seed: int
) -> Assignment:
    """Assign each image a split, or put it out.

    Args:
        candidates: In any order; the result does not depend on it.
        roles: What the source's splits are for.
        classes: All class names.
        val: Share of what is cut for val.
        test: Share of what is cut for test.
        seed: Of the cut.

    Raises:
        DataError: A group on two given sides, or classes without images in a split or with too few to cut: all of them.
    """
    number = len(candidates.image_ids)
    given = [roles.renamed.get(split, split) if split else None for split in candidates.given]
    places = np.array([OUT if split is None else SPLITS.index(split) for split in given], dtype=np.int8).reshape(number)
    statuses, reasons = ["used"] * number, [""] * number
    _put_out_conflicts(candidates, statuses, reasons)
    _put_out_duplicates(candidates, places, statuses, reasons)
    used = [row for row, status in enumerate(statuses) if status == "used"]
    is_used = np.isin(np.arange(number), used)
    places = np.where(is_used, places, OUT).astype(np.int8)

    free_places, parts = {OUT}, [TEST, VAL, TRAIN]
    if roles.cut_from_train:
        free_places, parts = {OUT, TRAIN}, [*(SPLITS.index(part) for part in roles.cut_from_train), TRAIN]
    components = find_components([candidates.sha256[row] for row in used], [candidates.groups[row] for row in used])
    fixed, problems = _fixed_parts(components, places[used], free_places)
    code_of = {label: code for code, label in enumerate(classes)}
    codes = np.array([code_of[candidates.labels[row]] for row in used], dtype=np.int64)
    cut = _Cut(components, codes, classes, fixed, parts, {VAL: val, TEST: test}, seed)
    places[used] = cut.place()[components.of_row]
    if problems or cut.problems:
        raise DataError("\n".join([*problems, *cut.problems]))
    return Assignment(places, statuses, reasons)


def threshold_place(seed: int, key: str) -> float:
    """Return a component's place in [0, 1): the first 8 bytes of sha256 of seed and key, as a fraction.

    Args:
        seed: Of the cut.
        key: Of the component.
    """
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _put_out_conflicts(candidates: Candidates, statuses: list[str], reasons: list[str]) -> None:
    for rows in _rows_by_content(candidates, statuses):
        if len({candidates.labels[row] for row in rows}) == 1:
            continue
        for row in rows:
            other = next(o for o in rows if candidates.labels[o] != candidates.labels[row])
            statuses[row] = "label_conflict"
            reasons[row] = f"the same content as {candidates.image_ids[other]}, labelled {candidates.labels[other]!r}"


def _put_out_duplicates(
    candidates: Candidates, places: npt.NDArray[np.int8], statuses: list[str], reasons: list[str]
) -> None:
    for rows in _rows_by_content(candidates, statuses):
        sides = {int(places[row]) for row in rows} - {OUT}
        if len(sides) < 2:
            continue
        kept = min(sides, key=_KEEPS_FIRST.__getitem__)
        stays = next(row for row in rows if places[row] == kept)
        for row in rows:
            if places[row] not in (kept, OUT):
                statuses[row] = "duplicate"
                reasons[row] = f"the same content as {candidates.image_ids[stays]}, which is in {SPLITS[kept]}"


def _rows_by_content(candidates: Candidates, statuses: Sequence[str]) -> list[list[int]]:
    """Return the rows of each content that is there more than once, in the order of their ids."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, sha256 in enumerate(candidates.sha256):
        if statuses[row] == "used":
            rows[sha256].append(row)
    return [sorted(of, key=lambda row: candidates.image_ids[row]) for of in rows.values() if len(of) > 1]


def _fixed_parts(
    components: Components, places: npt.NDArray[np.int8], free_places: set[int]
) -> tuple[npt.NDArray[np.int8], list[str]]:
    """Return the part that given splits put each component in, -1 where it is to be cut, and what contradicts."""
    fixed = np.full(len(components.keys), OUT, dtype=np.int8)
    sides: dict[int, set[int]] = defaultdict(set)
    for component, place in zip(components.of_row.tolist(), places.tolist(), strict=True):
        if place != OUT:
            sides[component].add(place)
    problems = []
    for component, found in sorted(sides.items()):
        if len(found) > 1:
            where = " and ".join(SPLITS[side] for side in sorted(found))
            problems.append(
                f"Group {components.names[component]} is given in {where}. A group stays on one side: correct the "
                "split of its images, or leave the split empty to have it cut."
            )
        elif not found & free_places:
            fixed[component] = found.pop()
    return fixed, sorted(problems)


class _Cut:
    """Place components by thresholds, then give a class that is short in a part the components nearest to it.

    Args:
        components: C components over N rows.
        codes: [N], class index.
        classes: Class names.
        fixed: [C], part that is given; -1: to be cut.
        parts: Parts to cut into, in the order along [0, 1); train last.
        shares: Share of each part but train.
        seed: Of the cut.
    """

    def __init__(
        self,
        components: Components,
        codes: npt.NDArray[np.int64],
        classes: Sequence[str],
        fixed: npt.NDArray[np.int8],
        parts: Sequence[int],
        shares: Mapping[int, float],
        seed: int,
    ) -> None:
        self.components, self.classes, self.fixed, self.parts = components, classes, fixed, parts
        self.problems: list[str] = []
        self._at = np.array([threshold_place(seed, key) for key in components.keys])
        self._edges: dict[int, tuple[float, float]] = {}
        edge = 0.0
        for part in (TEST, VAL):
            if part in parts:
                self._edges[part] = (edge, edge + shares[part])
                edge += shares[part]
        self._edges[TRAIN] = (edge, 1.0)
        pairs = np.unique(np.stack([components.of_row, codes], axis=1), axis=0) if len(codes) else np.zeros((0, 2), int)
        self._classes_of: dict[int, list[int]] = defaultdict(list)
        self._components_of: dict[int, list[int]] = defaultdict(list)
        for component, code in pairs.tolist():
            self._classes_of[component].append(code)
            self._components_of[code].append(component)

    def place(self) -> npt.NDArray[np.int8]:
        """Return the part of each component, [C]."""
        placed = self.fixed.copy()
        for part, (low, high) in self._edges.items():
            placed[(self.fixed == OUT) & (self._at >= low) & (self._at < high)] = part
        counts = np.zeros((len(SPLITS), len(self.classes)), dtype=np.int64)
        for component, codes in self._classes_of.items():
            counts[placed[component], codes] += 1
        for code in range(len(self.classes)):
            self._fill(code, placed, counts)
        return placed

    def _fill(self, code: int, placed: npt.NDArray[np.int8], counts: npt.NDArray[np.int64]) -> None:
        """Move components of one class until each part has one; no move may leave another class short."""
        free = [component for component in self._components_of[code] if self.fixed[component] == OUT]
        if not self._components_of[code]:
            self.problems.append(f"Class {self.classes[code]!r} has no image left that may be used.")
            return
        taken = {int(self.fixed[component]) for component in self._components_of[code]} - {OUT}
        to_fill = [part for part in (TEST, VAL, TRAIN) if part not in taken]
        not_cut = [part for part in to_fill if part not in self.parts or not (self.fixed == OUT).any()]
        if not_cut:
            self.problems.append(
                f"Class {self.classes[code]!r} has no images in {' and '.join(SPLITS[part] for part in not_cut)}. "
                "Each class needs some in train, val and test."
            )
            return
        if len(free) < len(to_fill):
            self.problems.append(
                f"Class {self.classes[code]!r} has {len(free)} separate image{'s' if len(free) != 1 else ''} to cut "
                f"(copies and groups count as one); {', '.join(SPLITS[p] for p in to_fill)} need {len(to_fill)}. "
                "Add images, or give the splits yourself."
            )
            return
        for part in to_fill:
            if counts[part, code]:
                continue
            donors = [c for c in free if all(counts[placed[c], k] > 1 for k in self._classes_of[c])]
            if not donors:
                self.problems.append(
                    f"Class {self.classes[code]!r} cannot have images in {SPLITS[part]}: its groups hold other "
                    "classes' last images too. Use smaller groups, or give the splits yourself."
                )
                return
            nearest = min(donors, key=lambda c: (self._distance(c, part), self.components.keys[c]))
            counts[placed[nearest], self._classes_of[nearest]] -= 1
            counts[part, self._classes_of[nearest]] += 1
            placed[nearest] = part

    def _distance(self, component: int, part: int) -> float:
        low, high = self._edges[part]
        return float(max(low - self._at[component], self._at[component] - high, 0.0))
