"""Tables as spreadsheets and scripts write them: each is read, or a sentence says file, line and cure."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.data.test_sources import placed, put
from transferlib.data.sources import list_images
from transferlib.errors import DataError

BODY = "a.jpg,cat\nb.jpg,dog\nc.jpg,cat\nd.jpg,dog\n"
READ = {
    "a long cell in a column that nobody reads": "path,label,notes\na.jpg,cat," + "x" * 200_000 + "\nb.jpg,dog,y\n",
    "an index without a name": ",path,label\n0,a.jpg,cat\n1,b.jpg,dog\n",
    "a comma at every end": "path,label,\na.jpg,cat,\nb.jpg,dog,\n",
    "old line ends": "path,label\ra.jpg,cat\rb.jpg,dog\r",
    "blank lines": "\n\npath,label\n\na.jpg,cat\n\nb.jpg,dog\n\n",
    "rows that were emptied": "path,label\na.jpg,cat\n,\nb.jpg,dog\n,\n",
    "large letters": "Path,LABEL\na.jpg,cat\nb.jpg,dog\n",
    "a byte order mark": "\ufeffpath,label\na.jpg,cat\nb.jpg,dog\n",
    "a no-break space": "path\u00a0,label\na.jpg,cat\nb.jpg,dog\n",
    "quoted cells": '"path","label"\n"a.jpg","cat"\n"b.jpg","dog"\n',
    "blanks before quotes": 'path, "label"\na.jpg, "cat"\nb.jpg, "dog"\n',
}
REFUSED = {
    "blanks after quotes": ('"path" , "label"\n"a.jpg" , "cat"\n', r"line 1: not CSV: .*right beside the commas"),
    "label twice": ("path,label,label\na.jpg,cat,dog\n", "has the column 'label' 2 times. Keep one of them"),
    "label twice, one large": ("path,label,Label\na.jpg,cat,dog\n", "has the column 'label' 2 times"),
    "semicolons": ("path;label\n" + BODY.replace(",", ";"), "separated by ';': save it with commas"),
    "tabs": ("path\tlabel\n" + BODY.replace(",", "\t"), r"separated by '\\t': save it with commas"),
    "a quote that does not end": ('path,label\na.jpg,"cat\nb.jpg,dog\n', r"line 3: not CSV: unexpected end of data"),
    "a name over two lines": ('path,label\na.jpg,"c\nat"\nb.jpg,dog\n', "line 3: label .* cannot name a folder"),
    "nothing": ("", "has the columns .none."),
    "backslashes": ("path,label\n.\\a.jpg,cat\n.\\b.jpg,dog\n", "Write paths with /, not with a backslash"),
    "a class without a file": (
        "path,label\na.jpg,cat\nb.jpg,dog\ngone.jpg,bird\n",
        r"Class 'bird' has no file that exists \(gone.jpg: .*\)\..*\nBring their files, or leave their rows out",
    ),
    "all of a class but one": ("path,label\na.jpg,cat\ngone.jpg,dog\n", "Class 'dog' has no file that exists"),
    "six million times nothing": ("\0" * 6_000_000, r"has the columns .*…"),
    "no rows": ("path,label\n", r"names no file that exists \(it has no rows\)"),
    "a row too long": ("path,label\na.jpg,cat,x\nb.jpg,dog\n", "line 2: another number of cells than the header"),
}
LINES = {
    "half a character in a group": (
        '{"path": "a.jpg", "label": "cat", "group": "\\ud800"}',
        "line 1: group is .*half a",
    ),
    "half a character in a path": ('{"path": "\\ud800.jpg", "label": "cat"}', "line 1: path is .*half a character"),
    "half a character in a label": ('{"path": "a.jpg", "label": "\\ud800"}', "line 1: label is .*half a character"),
    "a name twice": ('{"path": "a.jpg", "label": "cat", "label": "dog"}', "line 1: has 'label' twice; keep one"),
    "lists without end": ('{"path": "a.jpg", "label": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 1: not JSON"),
    "a number of thousands of digits": ('{"path": "a.jpg", "label": ' + "1" * 5000 + "}", "line 1: not JSON that can"),
    "not a number": ('{"path": "a.jpg", "label": NaN}', "line 1: label is nan; give text or a whole number"),
    "a list": ('[{"path": "a.jpg", "label": "cat"}]', "line 1: not a JSON object"),
    "an end of a file's name": ('{"path": "a\\u0000.jpg", "label": "cat"}', "line 1: .* is no path"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return put(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")


@pytest.mark.parametrize("what", READ)
def test_a_table_is_read(folder: Path, what: str) -> None:
    (folder / "m.csv").write_bytes(READ[what].encode())
    limit = csv.field_size_limit()
    listing = list_images(folder / "m.csv")
    assert {name: label for name, (label, _) in placed(listing).items()} == {"a.jpg": "cat", "b.jpg": "dog"}
    assert listing.notes in ((), ("Columns that are not used: notes.",))
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("what", REFUSED)
def test_a_table_is_refused_with_its_place_and_a_cure(folder: Path, what: str) -> None:
    text, says = REFUSED[what]
    (folder / "m.csv").write_bytes(text.encode())
    with pytest.raises(DataError, match=says) as error:
        list_images(folder / "m.csv")
    assert str(folder / "m.csv") in str(error.value)


@pytest.mark.parametrize("what", LINES)
def test_a_line_is_refused_with_its_place_and_a_cure(folder: Path, what: str) -> None:
    line, says = LINES[what]
    (folder / "m.jsonl").write_text(f'{line}\n{{"path": "b.jpg", "label": "dog"}}\n')
    with pytest.raises(DataError, match=says):
        list_images(folder / "m.jsonl")


@pytest.mark.parametrize(("encoding", "line"), [("utf-16", 1), ("latin-1", 2)])
def test_another_encoding_is_said_with_its_line(folder: Path, encoding: str, line: int) -> None:
    (folder / "m.csv").write_bytes("path,label\na.jpg,café\nb.jpg,dog\n".encode(encoding))
    with pytest.raises(DataError, match=f"line {line}: not UTF-8 text .*Save the table as UTF-8"):
        list_images(folder / "m.csv")


def test_half_a_character_in_a_column_that_nobody_reads_is_escaped(folder: Path) -> None:
    (folder / "m.jsonl").write_text('{"path": "a.jpg", "label": "x", "\\ud800": 1}\n{"path": "b.jpg", "label": "y"}\n')
    assert list_images(folder / "m.jsonl").notes == ("Columns that are not used: \\ud800.",)


def test_class_level_acts_on_no_table_and_says_so(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "table.csv").write_text("path,label\na.jpg,cat\nb.jpg,dog\n")
    assert "--class-level 2 acts on nothing" in " ".join(list_images(tmp_path / "table.csv", 2).notes)
