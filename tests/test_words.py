"""Quantities and texts as people read them."""

import json
from pathlib import Path

import pytest

from transferlib.runs import RunFolder
from transferlib.words import count, form, listed, shortened, some, spelled, without_escapes


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x1b[36mray::train()\x1b[39m (pid=1)", "ray::train() (pid=1)"),
        ("\x1b[1;38;5;9mred\x1b[0m", "red"),
        ("\x1b]8;;file:///log\x1b\\log\x1b]8;;\x07", "log"),
        ("[36m is no escape", "[36m is no escape"),
    ],
)
def test_without_escapes_leaves_the_words(text: str, plain: str) -> None:
    assert without_escapes(text) == plain


@pytest.mark.parametrize(
    ("text", "width", "shown"), [("abc", 3, "abc"), ("abcdef", 5, "ab…ef"), ("abcdef", 4, "ab…f"), ("", 3, "")]
)
def test_long_texts_lose_their_middle(text: str, width: int, shown: str) -> None:
    assert shortened(text, width) == shown


def test_a_noun_has_the_number_that_stands_before_it() -> None:
    assert [count(number, "class") for number in (0, 1, 1200)] == ["0 classes", "1 class", "1,200 classes"]
    assert [form(number, "has", "have") for number in (1, 1.0, 2, 0)] == ["has", "has", "have", "have"]
    words = [spelled(number, "arm") for number in (0, 1, 3, 12, 13, 2700)]
    assert words == ["no arms", "one arm", "three arms", "twelve arms", "13 arms", "2,700 arms"]


def test_lists_end_as_people_end_them() -> None:
    assert [listed(items) for items in ([], ["a"], [1, 2], "abc")] == ["", "a", "1 and 2", "a, b and c"]
    assert [some("abcde"[:number], 3) for number in (0, 3, 5)] == ["", "a, b, c", "a, b, c and 2 more"]


@pytest.mark.slow
def test_no_colour_reaches_status_json(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.set_status("failed", exit_code=1, error="\x1b[36mray::f()\x1b[39m died", traceback=True)
    status = json.loads(run.status.read_text())
    assert (status["error"], status["exit_code"], status["traceback"]) == ("ray::f() died", 1, True)
