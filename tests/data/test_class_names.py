"""Class names as people write them: one name is one class, near-equal ones are pointed at, odd ones are escaped."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from tests.data.test_sources import placed, put
from transferlib.data.sources import list_images
from transferlib.errors import DataError

ROSE = "rosé"
NFC, NFD = (unicodedata.normalize(form, ROSE) for form in ("NFC", "NFD"))
ZWNJ = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
NEAR = [
    ("Rose", "rose"),
    ("rose", "rose "),
    ("oak tree", "oak  tree"),
    ("oak_tree", "oak tree"),
    ("oak-tree", "Oak Tree"),
    ("1", "1.0"),
    ("01", "1"),
    ("no\u00a0break", "no break"),
    ("zero\u200bwidth", "zerowidth"),
    ("ﬁg", "fig"),
    ("STRASSE", "straße"),
]


def table(folder: Path, *labels: str) -> Path:
    put(folder, *(f"{index}.jpg" for index in range(len(labels))))
    rows = [f'{index}.jpg,"{label}"' for index, label in enumerate(labels)]
    (folder / "m.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    return folder / "m.csv"


def test_composed_and_decomposed_letters_are_one_class(tmp_path: Path) -> None:
    assert NFC != NFD
    put(tmp_path / "folders", f"{NFC}/a.jpg", f"{NFD}/b.jpg", "tulip/c.jpg")
    assert list_images(tmp_path / "folders").classes == (NFC, "tulip")
    assert list_images(table(tmp_path / "table", NFC, NFD, "tulip")).classes == (NFC, "tulip")


@pytest.mark.parametrize("name", [ZWNJ, FAMILY, "no\u00a0break", "e\u0301", "日本語", "עברית", "ไทย"])
def test_a_table_takes_what_a_folder_may_be_called(tmp_path: Path, name: str) -> None:
    composed = unicodedata.normalize("NFC", name)
    put(tmp_path / "folders", f"{name}/a.jpg", "tulip/c.jpg")
    assert composed in list_images(tmp_path / "folders").classes
    assert composed in list_images(table(tmp_path / "table", name, "tulip")).classes


@pytest.mark.parametrize("name", ["a\x07b", "a\x1b[31mb", "a\x7fb", "a\u2028b"])
def test_what_steers_a_terminal_is_refused_in_a_table_and_escaped_from_a_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot name a folder"):
        list_images(table(tmp_path / "table", name, "tulip"))
    put(tmp_path / "folders", f"{name}/a.jpg", "tulip/c.jpg")
    assert name in list_images(tmp_path / "folders").classes


@pytest.mark.parametrize(("one", "other"), NEAR)
def test_near_equal_names_are_pointed_at(tmp_path: Path, one: str, other: str) -> None:
    listing = list_images(put(tmp_path, f"{one}/a.jpg", f"{other}/b.jpg", "tulip/c.jpg"))
    (note,) = [note for note in listing.notes if "one class" in note]
    assert all(name in note for name in (repr(one), repr(other)))
    assert len(listing.classes) == 3


@pytest.mark.parametrize(("one", "other"), NEAR)
def test_near_equal_names_across_splits_are_an_error(tmp_path: Path, one: str, other: str) -> None:
    """It said that a class has 0 train images, of two names that look the same."""
    put(tmp_path, f"train/{one}/a.jpg", "train/tulip/b.jpg", f"test/{other}/c.jpg", "test/tulip/d.jpg")
    with pytest.raises(DataError) as error:
        list_images(tmp_path)
    assert all(text in str(error.value) for text in (f"{one!r} in train", f"{other!r} in test", "one name"))


def test_names_that_differ_are_left_alone(tmp_path: Path) -> None:
    listing = list_images(put(tmp_path, "rose/a.jpg", "roses/b.jpg", "1/c.jpg", "11/d.jpg", "1.5/e.jpg"))
    assert not listing.notes
    assert len(placed(listing)) == 5
