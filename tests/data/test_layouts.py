"""How folders are read: splits by every usual name, before or inside the classes; a question where two readings fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.test_sources import placed, put, reasons
from transferlib.data.sources import list_images
from transferlib.errors import DataError
from transferlib.names import split_of

HELD_OUT_PAIRS = [
    ("Training", "Testing", "test"),
    ("train", "testing", "test"),
    ("train", "dev", "val"),
    ("train", "eval", "val"),
    ("training_set", "test_set", "test"),
    ("trainset", "testset", "test"),
    ("train2017", "val2017", "val"),
    ("train ", "test", "test"),
    ("TRAIN", "Validation", "val"),
    ("train-images", "test-images", "test"),
    ("training data", "test data", "test"),
    ("Train Set", "Valid Set", "val"),
    ("train.split", "test.split", "test"),
    ("01_train", "02_test", "test"),
    ("Training_Images", "Evaluation_Images", "val"),
    ("seg_train", "seg_test", "test"),
    ("imgs_train", "imgs_val", "val"),
]


@pytest.mark.parametrize(("train", "other", "split"), HELD_OUT_PAIRS)
def test_split_folders_are_known_by_any_usual_name(tmp_path: Path, train: str, other: str, split: str) -> None:
    put(tmp_path, f"{train}/rose/a.jpg", f"{train}/tulip/b.jpg", f"{other}/rose/c.jpg", f"{other}/tulip/d.jpg")
    listing = list_images(tmp_path)
    assert listing.layout == "split folders"
    assert listing.classes == ("rose", "tulip")
    assert {where for _, where in placed(listing).values()} == {"train", split}


@pytest.mark.parametrize(
    "name",
    [
        "bus",
        "trainer",
        "tests",
        "contest",
        "valley",
        "device",
        "training wheels",
        "test 1",
        "set",
        "images",
        "2017",
        "",
    ],
)
def test_other_words_are_no_splits(name: str) -> None:
    assert split_of(name) is None


def test_an_unlabelled_folder_beside_split_folders_is_left_out_with_a_note(tmp_path: Path) -> None:
    put(tmp_path, "seg_train/sea/a.jpg", "seg_train/ice/b.jpg", "seg_test/sea/c.jpg", "seg_test/ice/d.jpg")
    put(tmp_path, "seg_pred/1.jpg", "seg_pred/2.jpg")
    listing = list_images(tmp_path)
    assert listing.classes == ("ice", "sea")
    assert any("'seg_pred'" in note for note in listing.notes)


def test_splits_inside_class_folders_are_honoured(tmp_path: Path) -> None:
    """They were cut anew, so that given test images were trained on."""
    put(
        tmp_path,
        *(f"{label}/{split}/{label}{split}.jpg" for label in ("rose", "tulip") for split in ("train", "val", "test")),
    )
    listing = list_images(tmp_path)
    assert listing.layout == "splits in class folders"
    assert placed(listing)["rose/test/rosetest.jpg"] == ("rose", "test")
    assert listing.count_by_split_and_class() == {split: {"rose": 1, "tulip": 1} for split in ("train", "val", "test")}


def test_class_folders_of_which_one_has_no_splits_are_cut(tmp_path: Path) -> None:
    put(tmp_path, "rose/train/a.jpg", "rose/test/b.jpg", "tulip/c.jpg")
    listing = list_images(tmp_path)
    assert listing.layout == "class folders"
    assert {split for _, split in placed(listing).values()} == {None}
    assert any("'rose/test' looks like a split inside a class" in note for note in listing.notes)


def splits_in_classes() -> list[str]:
    return [
        f"{label}/{split}/{label}{split}{n}.jpg"
        for label in ("rose", "tulip")
        for split in ("train", "val", "test")
        for n in range(2)
    ]


@pytest.mark.parametrize("stray", ["rose/cover.jpg", "rose/samples/a.jpg", "rose/notes/read.txt", "rose/read.txt"])
def test_a_stray_file_does_not_switch_off_splits_inside_class_folders(tmp_path: Path, stray: str) -> None:
    """One cover picture, and all images were cut anew: given test images were trained on."""
    listing = list_images(put(tmp_path, *splits_in_classes(), stray))
    assert listing.layout == "splits in class folders"
    assert len(listing.entries) == 12
    assert placed(listing)["rose/test/rosetest0.jpg"] == ("rose", "test")
    assert reasons(listing) == {stray: "not inside a split folder of a class"}
    assert any(stray in note for note in listing.notes) == stray.endswith(".jpg")


def test_an_empty_folder_does_not_switch_off_splits_inside_class_folders(tmp_path: Path) -> None:
    put(tmp_path, *splits_in_classes())
    (tmp_path / "rose/raw").mkdir()
    assert list_images(tmp_path).layout == "splits in class folders"


def test_as_many_images_beside_the_splits_of_a_class_as_in_them_are_cut_and_told(tmp_path: Path) -> None:
    listing = list_images(put(tmp_path, *splits_in_classes(), *(f"rose/more{n}.jpg" for n in range(6))))
    assert listing.layout == "class folders"
    assert len(listing.entries) == 18
    assert any("images lie beside such folders (6; 'rose/more0.jpg')" in note for note in listing.notes)


@pytest.mark.parametrize("top", [("flowers_train", "flowers_test"), ("cam1", "cam2")])
@pytest.mark.parametrize("above", ["", "train/"])
def test_a_stray_image_does_not_answer_the_question_of_two_readings(
    tmp_path: Path, top: tuple[str, ...], above: str
) -> None:
    """The classes were the upper folders, without a word."""
    paths = [f"{above}{folder}/{label}/{n}.jpg" for folder in top for label in ("rose", "tulip") for n in range(2)]
    stray = f"{above}{top[0]}/cover.jpg"
    put(tmp_path, *paths, stray)
    with pytest.raises(DataError, match="--class-level 2"):
        list_images(tmp_path)
    below = list_images(tmp_path, class_level=2)
    assert below.classes == ("rose", "tulip")
    assert reasons(below) == {stray: "not inside a class folder"}


def test_images_on_two_levels_in_comparable_numbers_answer_it_and_that_is_told(tmp_path: Path) -> None:
    paths = [f"{label}/{place}/{n}.jpg" for label in ("ants", "bees") for place in ("field", "lab") for n in range(2)]
    listing = list_images(put(tmp_path, *paths, *(f"ants/{n}.jpg" for n in range(3))))
    assert listing.classes == ("ants", "bees")
    assert any("'ants/0.jpg'" in note and "--class-level 2" in note for note in listing.notes)


AMBIGUOUS = [
    ("fold1", "fold2", "fold3"),
    ("images", "annotations"),
    ("2019", "2020"),
    ("camera_a", "camera_b"),
    ("male", "female"),
    ("part-00", "part-01"),
    ("site 1", "site 2"),
    ("batch1", "batch2"),
    ("day", "night"),
    ("left", "right"),
]


@pytest.mark.parametrize("top", AMBIGUOUS)
def test_folders_that_two_readings_fit_are_asked_about(tmp_path: Path, top: tuple[str, ...]) -> None:
    put(
        tmp_path, *(f"{folder}/{label}/{index}.jpg" for folder in top for label in ("cat", "dog") for index in range(2))
    )
    with pytest.raises(DataError) as error:
        list_images(tmp_path)
    text = str(error.value)
    assert "--class-level 1" in text
    assert "--class-level 2" in text
    assert all(repr(name) in text for name in (*sorted(top)[:2], "cat", "dog"))
    assert list_images(tmp_path, class_level=1).classes == tuple(sorted(top))
    below = list_images(tmp_path, class_level=2)
    assert below.classes == ("cat", "dog")
    assert len(below.entries) == 4 * len(top)
    assert any("--class-level 2" in note for note in below.notes)


def test_the_same_is_asked_below_split_folders(tmp_path: Path) -> None:
    paths = [
        f"{split}/{part}/{label}/{part}{index}.jpg"
        for split in ("train", "test")
        for part in ("a", "b")
        for label in ("cat", "dog")
        for index in range(2)
    ]
    put(tmp_path, *paths)
    with pytest.raises(DataError, match="--class-level 2"):
        list_images(tmp_path)
    assert placed(list_images(tmp_path, class_level=2))["train/a/cat/a0.jpg"] == ("cat", "train")
    assert placed(list_images(tmp_path, class_level=1))["train/a/cat/a0.jpg"] == ("a", "train")


@pytest.mark.parametrize(
    "paths",
    [
        ("ants/field/a.jpg", "ants/lab/b.jpg", "bees/c.jpg", "bees/field/d.jpg"),  # a class folder with images
        ("ants/2019/a.jpg", "bees/2020/b.jpg"),  # nothing shared
        ("ants/a.jpg", "bees/b.jpg"),
    ],
)
def test_one_reading_is_not_asked_about(tmp_path: Path, paths: tuple[str, ...]) -> None:
    assert list_images(put(tmp_path, *paths)).classes == ("ants", "bees")


def test_a_class_level_that_is_not_there_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "ants/a.jpg", "bees/b.jpg")
    with pytest.raises(DataError, match="--class-level 2"):
        list_images(tmp_path, class_level=2)


def test_a_manifests_split_column_knows_the_same_names(tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}.jpg" for name in "abcdef"))
    rows = ["path,label,split", "a.jpg,cat,Training", "b.jpg,dog,train_set", "c.jpg,cat,dev", "d.jpg,dog,Validation"]
    rows += ["e.jpg,cat,TESTING", "f.jpg,dog,test set"]
    (tmp_path / "all.csv").write_text("\n".join(rows))
    splits = [split for _, split in placed(list_images(tmp_path / "all.csv")).values()]
    assert splits == ["train", "train", "val", "val", "test", "test"]


@pytest.mark.parametrize(("one", "other"), [("train_1", "test_1"), ("flowers-train", "flowers-test"), ("tr", "te")])
def test_the_question_says_how_given_splits_are_kept(tmp_path: Path, one: str, other: str) -> None:
    put(tmp_path, f"{one}/rose/a.jpg", f"{one}/tulip/b.jpg", f"{other}/rose/c.jpg", f"{other}/tulip/d.jpg")
    with pytest.raises(DataError, match=r"splits\? Only by usual names are they kept: call them train, val and test"):
        list_images(tmp_path)
    assert "All are cut, whatever lies above them" in " ".join(list_images(tmp_path, 2).notes)


@pytest.mark.parametrize("beside", ["labels/a.txt", "annotations/a.xml", "labels/train/a.txt", "meta/a.json"])
def test_a_folder_of_what_lies_beside_images_is_no_class(tmp_path: Path, beside: str) -> None:
    put(tmp_path, "rose/a.jpg", "tulip/b.jpg", beside)
    with pytest.raises(DataError, match=f"Class folders without images: '{beside.partition('/')[0]}'"):
        list_images(tmp_path)


def test_a_path_that_is_not_utf_8_is_refused_with_the_cure(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    put(folder, "rose/a.jpg", "tulip/b.jpg")
    with pytest.raises(DataError, match="this path is not UTF-8"):
        list_images(folder)
