"""Folds: each image is tested once a seed, classes are even, what belongs together is in one part."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from transferlib.data.components import Components, find_components
from transferlib.data.facts import ImageFacts
from transferlib.data.folds import Folds
from transferlib.data.listing import Entry, Listing, fold_counts
from transferlib.data.manifest import Manifest
from transferlib.errors import DataError
from transferlib.names import SPLITS
from transferlib.records import TrialKey
from transferlib.spec import DataSpec, SplitSpec

TRAIN, VAL, TEST = range(3)


def cut(
    sizes: dict[str, int], num_folds: int, repeat: int = 0, groups: dict[str, str] | None = None
) -> tuple[np.ndarray, np.ndarray, Components]:
    """Return parts, class codes and components of images named `a0`, `a1`, ..."""
    names = [f"{label}{index}" for label, number in sizes.items() for index in range(number)]
    codes = np.array([list(sizes).index(name[0]) for name in names])
    components = find_components(names, [(groups or {}).get(name) for name in names])
    return Folds(num_folds, 7).parts(components, codes, list(sizes), repeat), codes, components


def key(seed: int, fold: int) -> TrialKey:
    return TrialKey("resnet18", "full", fold, seed, 0)


def test_each_part_has_of_each_class_what_was_planned() -> None:
    for seed in range(50):
        generator = random.Random(seed)
        num_folds = generator.randint(3, 10)
        sizes = {label: generator.randint(num_folds, 60) for label in "abcd"[: generator.randint(2, 4)]}
        parts, codes, _ = cut(sizes, num_folds, repeat=seed)
        found = [
            [int(((parts == part) & (codes == code)).sum()) for code in range(len(sizes))] for part in range(num_folds)
        ]
        assert found == fold_counts(list(sizes.values()), num_folds)


def test_counts_are_even_by_class_and_in_all() -> None:
    counts = fold_counts([7, 8, 9, 3], 4)
    assert counts == [[2, 2, 2, 1], [2, 2, 2, 1], [2, 2, 2, 1], [1, 2, 3, 0]]
    for seed in range(100):
        counts = np.array(fold_counts(np.random.default_rng(seed).integers(0, 40, 9).tolist(), 3 + seed % 8))
        assert np.ptp(counts, axis=0).max() <= 1
        assert np.ptp(counts.sum(axis=1)) <= 1


def test_each_image_is_tested_once_and_chosen_on_once() -> None:
    parts, *_ = cut({"a": 31, "b": 17}, 5)
    splits = np.stack([Folds(5, 7).splits(parts, fold) for fold in range(1, 6)])
    assert ((splits == TEST).sum(axis=0) == 1).all()
    assert ((splits == VAL).sum(axis=0) == 1).all()
    assert ((splits == TRAIN).sum(axis=0) == 3).all()


def test_groups_and_copies_stay_in_one_part_and_counts_come_within_the_largest_of_them() -> None:
    for seed in range(50):
        generator = random.Random(seed)
        num_folds = generator.randint(3, 6)
        sizes = {label: generator.randint(6 * num_folds, 80) for label in "abc"}
        groups = {
            f"{label}{index}": f"{label}-{generator.randint(0, 8)}"
            for label, number in sizes.items()
            for index in range(number)
            if generator.random() < 0.25
        }
        parts, codes, components = cut(sizes, num_folds, groups=groups)
        for component in range(len(components.keys)):
            assert len(np.unique(parts[components.of_row == component])) == 1
        found = np.array([[((parts == p) & (codes == c)).sum() for c in range(3)] for p in range(num_folds)])
        largest = np.bincount(components.of_row).max()
        assert np.abs(found - np.array(fold_counts(list(sizes.values()), num_folds))).max() <= largest


def test_groups_of_several_classes_are_spread_evenly() -> None:
    groups = {f"{label}{index}": f"patient-{index // 2}" for label in "ab" for index in range(40)}
    parts, codes, _ = cut({"a": 40, "b": 40}, 5, groups=groups)
    assert [[int(((parts == p) & (codes == c)).sum()) for c in range(2)] for p in range(5)] == [[8, 8]] * 5


def test_every_seed_cuts_anew_and_the_same_seed_alike() -> None:
    one, again, other = (cut({"a": 40, "b": 40}, 4, repeat=repeat)[0] for repeat in (3, 3, 4))
    assert (one == again).all()
    assert (one != other).mean() > 0.5


def test_one_more_photo_moves_few_others() -> None:
    for seed in range(20):
        before, *_ = cut({"a": 57}, 5, repeat=seed)
        after, *_ = cut({"a": 58}, 5, repeat=seed)
        assert (before != after[:57]).sum() <= 5


@pytest.mark.parametrize(
    ("sizes", "groups", "words"),
    [
        ({"a": 9, "b": 4}, {}, "Class 'b' has 4 separate images .*--folds 5 needs 5"),
        ({"a": 9, "b": 9}, {f"b{i}": "one" for i in range(9)}, "Class 'b' has 1 separate image "),
        (
            {"a": 12, "b": 5},
            {**{f"b{i}": f"g{i}" for i in range(5)}, **{f"a{i}": f"g{i % 2}" for i in range(12)}},
            "Class 'a' has 2 separate images",
        ),
    ],
)
def test_classes_that_cannot_be_in_every_part_are_named(
    sizes: dict[str, int], groups: dict[str, str], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        cut(sizes, 5, groups=groups)


def listing(*entries: tuple[str, str | None], group: str | None = None) -> Listing:
    named = [
        Entry(f"{label}/{index}.jpg", f"/{label}/{index}.jpg", label, split, group)
        for index, (label, split) in enumerate(entries)
    ]
    return Listing("/photos", "class folders", tuple(sorted(named, key=lambda entry: entry.image_id)))


def manifest(of: Listing, num_folds: int = 5) -> Manifest:
    facts = [ImageFacts(entry.image_id, 8, 8, "") for entry in of.entries]
    return Manifest.build(of, facts, DataSpec(path="/photos", split=SplitSpec(folds=num_folds, seed=7)))


PHOTOS = listing(*[("cat", None)] * 33, *[("dog", None)] * 21)


def test_a_manifest_gives_each_trial_its_images_and_reads_back(tmp_path: Path) -> None:
    whole = manifest(PHOTOS)
    whole.save(tmp_path / "manifest.parquet")
    read = Manifest.load(tmp_path / "manifest.parquet")
    assert read.folds == whole.folds == Folds(5, 7)
    for seed in (0, 3):
        tested = Counter()
        for fold in range(1, 6):
            images = read.images(key(seed, fold))
            assert (images.splits == whole.images(key(seed, fold)).splits).all()
            assert images.image_ids == whole.images().image_ids
            tested.update(images.rows("test").tolist())
        assert tested == Counter(range(54))
    assert (read.images().splits == read.images(key(0, 1)).splits).all()
    assert (read.images(key(0, 1)).splits != read.images(key(1, 1)).splits).any()


def test_the_plans_counts_are_those_of_a_fold() -> None:
    planned = PHOTOS.planned_fold_counts(5)
    images = manifest(PHOTOS).images()
    assert planned == {split: len(images.rows(split)) for split in SPLITS} == {"train": 32, "val": 11, "test": 11}


def test_a_train_folder_alone_is_cut_and_given_held_out_sets_are_not() -> None:
    assert manifest(listing(*[("cat", "train")] * 9, *[("dog", "train")] * 9), 3).folds == Folds(3, 7)
    given = listing(*[("cat", "train")] * 9, *[("dog", "train")] * 9, ("cat", "test"), ("dog", "test"))
    with pytest.raises(DataError, match=r"--folds 3 cuts all images anew, but /photos .*\(train and test\)"):
        given.check_folds(3)
    with pytest.raises(DataError, match="Class 'dog' has 2 images, fewer than --folds 3"):
        listing(*[("cat", None)] * 9, *[("dog", None)] * 2).check_folds(3)


def test_a_manifest_without_folds_gives_every_trial_the_same() -> None:
    plain = Manifest.build(PHOTOS, [ImageFacts(e.image_id, 8, 8, "") for e in PHOTOS.entries], DataSpec(path="/photos"))
    assert plain.images(key(3, 0)) is plain.images()


def test_small_grouped_sets_are_cut_where_a_cut_exists() -> None:
    """A greedy cut alone left a class out of a part in some seeds, and passed the same images in others."""
    for seed in range(200):
        generator = random.Random(seed)
        groups, sizes = {}, {"a": 0, "b": 0}
        for group in range(8):
            for _ in range(generator.randint(1, 3)):
                label = "ab"[group % 2] if group < 6 else generator.choice("ab")
                groups[f"{label}{sizes[label]}"] = f"g{group}"
                sizes[label] += 1
        parts, codes, _ = cut(sizes, 3, repeat=seed, groups=groups)  # three groups of each class alone: a cut exists
        assert all(len(np.unique(parts[codes == code])) == 3 for code in range(2))
