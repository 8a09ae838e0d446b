"""Quantities and texts as people read them."""

import json
from pathlib import Path

import pytest

from transferlib.runs import RunFolder
from transferlib.words import shortened, without_escapes


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


@pytest.mark.slow
def test_no_colour_reaches_status_json(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.set_status("failed", exit_code=1, error="\x1b[36mray::f()\x1b[39m died", traceback=True)
    status = json.loads(run.status.read_text())
    assert (status["error"], status["exit_code"], status["traceback"]) == ("ray::f() died", 1, True)
