"""Who is on which side: given splits first, and what has none is cut by rank within each class.

What must stay together is a *component*: images joined by a group, by the same content or as near
duplicates. Components are ordered by hash(seed, component), so the order depends on nothing else: not on the other
images, the files' order, or the machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from transferlib.data.components import OUT, TEST, TRAIN, VAL, Components, ToCut, find_components
from transferlib.data.folds import Folds
from transferlib.data.listing import SplitRoles
from transferlib.data.rank_cut import RankCut
from transferlib.data.threshold_cut import ThresholdCut
from transferlib.errors import DataError
from transferlib.names import SPLITS
from transferlib.words import count, first_of

Cut = Literal["rank", "threshold"]
"""rank: as new runs are cut; threshold: as runs were before, for their resume."""
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
    near: Sequence[str | None] | None = None
    """Equal for near duplicates that are to stay together; None: none are."""


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
    candidates: Candidates,
    roles: SplitRoles,
    *,
    classes: Sequence[str],
    val: float,
    test: float,
    seed: int,
    cut: Cut = "rank",
) -> Assignment:
    """Assign each image a split, or put it out.

    Args:
        candidates: In any order; the result does not depend on it.
        roles: What the source's splits are for.
        classes: All class names.
        val: Share of what is cut for val.
        test: Share of what is cut for test.
        seed: Of the cut.
        cut: How.

    Raises:
        DataError: A group on two given sides, or classes without images in a split or with too few to cut: all of them.
    """
    number = len(candidates.image_ids)
    given = [roles.renamed.get(split, split) if split else None for split in candidates.given]
    places = np.array([OUT if split is None else SPLITS.index(split) for split in given], dtype=np.int8).reshape(number)
    statuses, reasons, used = _put_out(candidates, places)
    is_used = np.isin(np.arange(number), used)
    places = np.where(is_used, places, OUT).astype(np.int8)

    candidates = _without_given_leaks(candidates, places, used, roles)
    components, codes = _components_of(candidates, used, classes)
    fixed, problems = _fixed_parts(components, places[used], {OUT, TRAIN} if roles.cut_from_train else {OUT})
    shares = {SPLITS.index(part): share for part, share in roles.shares(val, test).items()}
    needed, too_few = _needed_parts(components, codes, classes, fixed, shares)
    to_cut = ToCut(components, codes, classes, fixed, shares, needed, seed)
    cutter = RankCut(to_cut) if cut == "rank" else ThresholdCut(to_cut)
    places[used] = cutter.place()[components.of_row]
    if problems := [*problems, *too_few, *cutter.problems]:
        raise DataError("\n".join(first_of(problems, "problems")))
    return Assignment(places, statuses, reasons)


def assign_folds(candidates: Candidates, folds: Folds, *, classes: Sequence[str]) -> Assignment:
    """Assign each image its split in the first fold of the first cut, or put it out; whatever split was given.

    Args:
        candidates: In any order; the result does not depend on it.
        folds: How images are cut.
        classes: All class names.

    Raises:
        DataError: Classes that cannot have images in every part: all of them.
    """
    places = np.full(len(candidates.image_ids), OUT, dtype=np.int8)
    statuses, reasons, used = _put_out(candidates, places)
    components, codes = _components_of(candidates, used, classes)
    places[used] = folds.splits(folds.parts(components, codes, classes, repeat=0), fold=1)
    return Assignment(places, statuses, reasons)


def _components_of(
    candidates: Candidates, used: Sequence[int], classes: Sequence[str]
) -> tuple[Components, npt.NDArray[np.int64]]:
    """Return what belongs together of the images that are used, and their class indices."""
    components = _joined(candidates, used)
    code_of = {label: code for code, label in enumerate(classes)}
    return components, np.array([code_of[candidates.labels[row]] for row in used], dtype=np.int64)


def _joined(candidates: Candidates, used: Sequence[int]) -> Components:
    near = None if candidates.near is None else [candidates.near[row] for row in used]
    contents, groups = [candidates.sha256[row] for row in used], [candidates.groups[row] for row in used]
    return find_components(contents, groups, near)


def _without_given_leaks(
    candidates: Candidates, places: npt.NDArray[np.int8], used: Sequence[int], roles: SplitRoles
) -> Candidates:
    """Return candidates whose near duplicates join no two given sides: those are told of, not moved.

    First only the images to be cut go on together, and where even that joins two sides, none of them do.
    """
    free = {OUT, TRAIN} if roles.cut_from_train else {OUT}
    for keeps_free in (True, False):
        if candidates.near is None:
            return candidates
        of_row = _joined(candidates, used).of_row
        sides: dict[int, set[int]] = defaultdict(set)
        for component, place in zip(of_row.tolist(), places[used].tolist(), strict=True):
            sides[component] |= {place} - {OUT}
        near = list(candidates.near)
        for row, component in zip(used, of_row.tolist(), strict=True):
            if len(sides[component]) > 1 and not (keeps_free and int(places[row]) in free):
                near[row] = None
        candidates = replace(candidates, near=near)
    return candidates


def _put_out(candidates: Candidates, places: npt.NDArray[np.int8]) -> tuple[list[str], list[str], list[int]]:
    """Return each image's status and reason, and the rows that are used."""
    number = len(candidates.image_ids)
    statuses, reasons = ["used"] * number, [""] * number
    _put_out_conflicts(candidates, statuses, reasons)
    _put_out_duplicates(candidates, places, statuses, reasons)
    return statuses, reasons, [row for row, status in enumerate(statuses) if status == "used"]


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


def _needed_parts(
    components: Components,
    codes: npt.NDArray[np.int64],
    classes: Sequence[str],
    fixed: npt.NDArray[np.int8],
    shares: Mapping[int, float],
) -> tuple[dict[int, list[int]], list[str]]:
    """Return the parts that the cut has to give an image of each class, and the classes that it cannot serve."""
    needed: dict[int, list[int]] = {}
    problems = []
    is_any_free = bool((fixed == OUT).any())
    for code, label in enumerate(classes):
        parts = fixed[np.unique(components.of_row[codes == code])]
        number = int((parts == OUT).sum())
        lacking = [part for part in (TEST, VAL, TRAIN) if part not in parts]
        not_cut = [SPLITS[part] for part in lacking if part not in shares or not is_any_free]
        if not len(parts):
            problems.append(f"Class {label!r} has no image left that may be used.")
        elif not_cut:
            problems.append(
                f"Class {label!r} has no images in {' and '.join(not_cut)}. "
                "Each class needs some in train, val and test."
            )
        elif number < len(lacking):
            problems.append(
                f"Class {label!r} has {count(number, 'separate image')} to cut "
                f"(copies and groups count as one, near duplicates too, but not under --near-duplicates tell); "
                f"{', '.join(SPLITS[p] for p in lacking)} need {len(lacking)}. "
                "Add images, or give the splits yourself."
            )
        else:
            needed[code] = lacking
    return needed, problems
