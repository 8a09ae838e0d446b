"""Runs that began with the old cut go on with it: what it gave then it gives now."""

from __future__ import annotations

import hashlib

import pytest

from tests.data.test_splits import Row, assign, images, per_class, sides
from transferlib.data.components import hash_place


def of_old(rows: list[Row], seed: int = 0) -> dict[str, str]:
    return sides(rows, seed, cut="threshold")


def content_near(place: float) -> str:
    """Return a content whose place in [0, 1) is this one, to a hundredth."""
    return next(str(i) for i in range(100_000) if abs(hash_place(0, f"content:{i}") - place) < 0.01)


def mixed(given: str) -> list[Row]:
    """Return four classes of 60, 40, 5 and 17 images with copies and groups, or with given splits and neither."""
    rows: list[Row] = []
    for label, number in zip("abcd", (60, 40, 5, 17), strict=True):
        for i in range(number):
            group = None if label == "c" else f"{'ab' if label in 'ab' and i % 9 == 0 else label}{i // 3}"
            content = f"{label}{i - i % 11 % 2}"
            if given == "held out":
                rows.append((f"{label}/{i}", f"{label}/{i}", label, None, "train" if i % 4 else "val"))
            elif given == "some":
                rows.append((f"{label}/{i}", f"{label}/{i}", label, None, None if len(rows) % 5 else "train"))
            else:
                rows.append((f"{label}/{i}", content, label, group, given or None))
    return rows


@pytest.mark.parametrize(
    ("given", "seed", "expected"),
    [
        ("", 0, "657a7cc09b35a864"),
        ("", 7, "baff18ab5c5d406c"),
        ("train", 0, "657a7cc09b35a864"),
        ("train", 7, "baff18ab5c5d406c"),
        ("held out", 0, "b57282e870ad29ff"),
        ("held out", 7, "619b62ce433c9966"),
        ("some", 0, "de10b4574b02a05f"),
        ("some", 7, "2a9c1458e1ec8cf7"),
    ],
)
def test_old_cut_gives_what_it_gave_before_there_was_another(given: str, seed: int, expected: str) -> None:
    """Expected was written down from the code as it was when it was the only cut."""
    found = assign(mixed(given), seed, cut="threshold").splits
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == expected


def test_shares_come_out_about_right() -> None:
    rows = images("abc", 2000)
    counts = per_class(rows, of_old(rows))
    for label in "abc":
        # Three standard deviations of a binomial of 2,000 draws at 0.15 are 48.
        assert abs(counts[label, "test"] - 300) < 48
        assert abs(counts[label, "val"] - 300) < 48


@pytest.mark.parametrize("seed", range(10))
def test_adding_files_moves_no_other_file(seed: int) -> None:
    rows = images("ab", 60)
    before = of_old(rows, seed)
    after = of_old(rows + images("ab", 30, prefix="new") + images("c", 30), seed)
    assert {image_id: after[image_id] for image_id in before} == before


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        # Test is short: of val and train it takes the nearest, from val where val has another ...
        ([0.18, 0.25, 0.50, 0.90], ["test", "val", "train", "train"]),
        # ... and not val's only one.
        ([0.20, 0.40, 0.60, 0.90], ["val", "test", "train", "train"]),
        # Val is short: it takes what is nearest to its own stretch, 0.15 to 0.30, from either side.
        ([0.02, 0.06, 0.35, 0.90], ["test", "test", "val", "train"]),
        ([0.02, 0.12, 0.60, 0.90], ["test", "val", "train", "train"]),
        # All in train: test takes the lowest, val the next.
        ([0.50, 0.60, 0.70, 0.80], ["test", "val", "train", "train"]),
        # None in train: the highest goes there.
        ([0.05, 0.10, 0.20, 0.25], ["test", "test", "val", "train"]),
    ],
)
def test_a_short_part_takes_what_is_nearest_its_threshold(places: list[float], expected: list[str]) -> None:
    rows: list[Row] = [(f"a/{i}", content_near(place), "a", None, None) for i, place in enumerate(places)]
    placed = of_old(rows + images("b", 50))
    assert [placed[row[0]] for row in rows] == expected
