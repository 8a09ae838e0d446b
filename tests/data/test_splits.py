from __future__ import annotations

from collections import defaultdict
from itertools import product

import numpy as np
import pytest

from transferlib.data.components import OUT, hash_place
from transferlib.data.listing import split_roles
from transferlib.data.splits import Assignment, Candidates, Cut, assign_splits
from transferlib.errors import DataError
from transferlib.names import SPLITS

Row = tuple[str, str, str, str | None, str | None]
"""Image id, content, label, group, given split."""

in_both_cuts = pytest.mark.parametrize("cut", ["rank", "threshold"])


def assign(rows: list[Row], seed: int = 0, val: float = 0.15, test: float = 0.15, cut: Cut = "rank") -> Assignment:
    image_ids, sha256, labels, groups, given = ([row[place] for row in rows] for place in range(5))
    return assign_splits(
        Candidates(image_ids, sha256, labels, groups, given),  # type: ignore[arg-type]
        split_roles({split or "" for split in given}),
        classes=sorted(set(labels)),  # type: ignore[type-var]
        val=val,
        test=test,
        seed=seed,
        cut=cut,
    )


def sides(rows: list[Row], seed: int = 0, val: float = 0.15, test: float = 0.15, cut: Cut = "rank") -> dict[str, str]:
    found = assign(rows, seed, val, test, cut)
    return {row[0]: "out" if side == OUT else SPLITS[side] for row, side in zip(rows, found.splits, strict=True)}


def images(classes: str, number: int, split: str | None = None, prefix: str = "") -> list[Row]:
    return [(f"{prefix}{c}/{i}", f"content {prefix}{c}{i}", c, None, split) for c in classes for i in range(number)]


def per_class(rows: list[Row], placed: dict[str, str]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        counts[row[2], placed[row[0]]] += 1
    return counts


def test_place_is_the_same_on_every_machine() -> None:
    assert hash_place(0, "content:abc") == 0.48603577881722065
    assert hash_place(7, "group:p1") == 0.33364146645342146


@in_both_cuts
def test_order_of_files_changes_nothing(cut: Cut) -> None:
    rows = images("ab", 40)
    rows += [(f"{c}/g{i}", f"{c}g{i}", c, f"g{i // 2}", None) for c in "ab" for i in range(20)]
    shuffled = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    assert sides(shuffled, cut=cut) == sides(rows, cut=cut)


def test_seed_changes_the_cut() -> None:
    rows = images("ab", 40)
    assert sides(rows, seed=1) != sides(rows, seed=0)


@in_both_cuts
def test_every_class_has_an_image_in_every_part_however_small(cut: Cut) -> None:
    for number, seed in product([3, 4, 10], range(40)):
        rows = images("abcd", number)
        counts = per_class(rows, sides(rows, seed, cut=cut))
        assert all(counts[label, split] >= 1 for label in "abcd" for split in SPLITS), (number, seed)


def test_fewer_than_three_images_of_a_class_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"Class 'b' has 2 separate images to cut .*need 3"):
        sides(images("a", 9) + images("b", 2))


def test_copies_of_one_photo_count_as_one_image() -> None:
    copies: list[Row] = [(f"b/{i}", "one content", "b", None, None) for i in range(9)]
    with pytest.raises(DataError, match="Class 'b' has 1 separate image "):
        sides(images("a", 9) + copies)


def test_all_short_classes_are_named_at_once() -> None:
    with pytest.raises(DataError) as caught:
        sides(images("a", 9) + images("b", 2) + images("c", 1))
    assert "'b'" in str(caught.value)
    assert "'c'" in str(caught.value)


@in_both_cuts
def test_same_content_is_never_on_two_sides(cut: Cut) -> None:
    rows: list[Row] = [(f"{c}/{i}", f"{c}{i // 3}", c, None, None) for c in "ab" for i in range(30)]
    for seed in range(20):
        placed = sides(rows, seed, cut=cut)
        by_content: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            by_content[row[1]].add(placed[row[0]])
        assert all(len(of) == 1 and "out" not in of for of in by_content.values()), seed


@in_both_cuts
def test_groups_never_straddle_even_through_shared_content(cut: Cut) -> None:
    rows: list[Row] = [(f"{c}/{i}", f"{c}{i}", c, f"patient {i // 4}", None) for c in "ab" for i in range(40)]
    # One photo of patient 0 lies among those of patient 5 too: both patients are one component.
    rows.append(("a/copy", "a0", "a", "patient 5", None))
    for seed in range(20):
        placed = sides(rows, seed, cut=cut)
        by_group: dict[str | None, set[str]] = defaultdict(set)
        for row in rows:
            by_group["patient 0" if row[3] == "patient 5" else row[3]].add(placed[row[0]])
        assert all(len(of) == 1 for of in by_group.values()), seed
        counts = per_class(rows, placed)
        assert all(counts[label, split] for label in "ab" for split in SPLITS), seed


def test_groups_that_grow_alike_stay_where_they_were() -> None:
    rows: list[Row] = [(f"{c}/{i}", f"{c}{i}", c, f"g{c}{i // 2}", None) for c in "ab" for i in range(120)]
    more: list[Row] = [(f"new/{c}{i}", f"0 new {c}{i}", c, f"g{c}{i // 2}", None) for c in "ab" for i in range(120)]
    before, after = sides(rows), sides(rows + more)
    assert {image_id: after[image_id] for image_id in before} == before
    assert all(after[f"new/{c}{i}"] == before[f"{c}/{i}"] for c in "ab" for i in range(120))


def test_groups_that_tie_classes_together_too_tightly_are_refused() -> None:
    rows: list[Row] = [(f"{c}/{i}", f"{c}{i}", c, f"g{i % 2}", None) for c in "ab" for i in range(10)]
    with pytest.raises(DataError, match=r"Class 'a' has 2 separate images"):
        sides(rows)


def test_given_splits_win() -> None:
    rows = [*images("ab", 5, "train", "t"), *images("ab", 2, "val", "v"), *images("ab", 3, "test", "e")]
    assert sides(rows) == {row[0]: row[4] for row in rows}


def test_held_out_set_becomes_test_and_val_is_cut_from_train_by_class() -> None:
    rows = [*images("ab", 400, "train", "t"), *images("ab", 50, "val", "v")]
    placed = sides(rows)
    counts = per_class(rows, placed)
    for label in "ab":
        assert counts[label, "test"] == 50
        assert counts[label, "val"] == 60
    assert all(placed[row[0]] == "test" for row in rows if row[4] == "val")
    assert "test set" in split_roles({"train", "val"}).note
    small = [*images("ab", 3, "train", "t"), *images("ab", 1, "test", "e")]
    assert per_class(small, sides(small))["a", "val"] == 1


def test_train_alone_is_cut_for_both() -> None:
    rows = images("ab", 50, "train")
    assert set(sides(rows).values()) == {"train", "val", "test"}


def test_images_without_a_split_are_cut_beside_given_ones() -> None:
    rows = [*images("ab", 5, "train", "t"), *images("ab", 2, "test", "e"), *images("ab", 40, None, "x")]
    placed = sides(rows)
    assert all(placed[row[0]] == row[4] for row in rows if row[4])
    assert {placed[row[0]] for row in rows if not row[4]} == {"train", "val", "test"}


def test_class_missing_in_a_given_split_is_refused_by_name() -> None:
    rows = [*images("ab", 5, "train", "t"), *images("ab", 2, "val", "v"), *images("a", 3, "test", "e")]
    with pytest.raises(DataError, match="Class 'b' has no images in test"):
        sides(rows)


def test_test_keeps_a_photo_that_train_or_val_has_too() -> None:
    rows = [*images("ab", 5, "train", "t"), *images("ab", 3, "val", "v"), *images("ab", 3, "test", "e")]
    rows += [("t/copy", "content ea0", "a", None, "train"), ("v/copy", "content ea0", "a", None, "val")]
    rows += [("t/other", "content va0", "a", None, "train")]
    found = assign(rows)
    of = {row[0]: place for place, row in enumerate(rows)}
    for name in ("t/copy", "v/copy", "t/other"):
        assert found.statuses[of[name]] == "duplicate"
        assert found.splits[of[name]] == OUT
    assert found.reasons[of["t/copy"]] == "the same content as ea/0, which is in test"
    assert found.reasons[of["t/other"]] == "the same content as va/0, which is in val"
    assert found.statuses[of["ea/0"]] == found.statuses[of["va/0"]] == "used"


def test_copy_in_the_held_out_set_is_out_of_train_before_val_is_cut() -> None:
    rows = [
        *images("ab", 30, "train", "t"),
        *images("ab", 5, "val", "v"),
        ("t/copy", "content va0", "a", None, "train"),
    ]
    assert sides(rows)["t/copy"] == "out"


def test_same_content_under_two_labels_is_out_on_all_sides() -> None:
    rows = [*images("ab", 20), ("a/x", "shared", "a", None, None), ("b/x", "shared", "b", None, None)]
    rows.append(("b/y", "shared", "b", None, None))
    found = assign(rows)
    assert found.statuses[-3:] == ["label_conflict"] * 3
    assert list(found.splits[-3:]) == [OUT] * 3
    assert found.reasons[-3] == "the same content as b/x, labelled 'b'"
    assert found.reasons[-1] == "the same content as a/x, labelled 'a'"
    assert set(found.statuses[:-3]) == {"used"}


def test_group_on_two_given_sides_is_refused_by_name() -> None:
    rows = [*images("ab", 5, "train", "t"), *images("ab", 3, "val", "v"), *images("ab", 3, "test", "e")]
    rows += [("t/p", "1", "a", "patient 7", "train"), ("e/p", "2", "a", "patient 7", "test")]
    with pytest.raises(DataError, match="Group 'patient 7' is given in train and test"):
        sides(rows)


def test_class_whose_images_are_all_in_conflict_is_refused() -> None:
    rows = [*images("a", 9), ("a/x", "shared", "a", None, None), ("b/x", "shared", "b", None, None)]
    with pytest.raises(DataError, match="Class 'b' has no image left"):
        sides(rows)
