from __future__ import annotations

import pytest

from transferlib.report import words


@pytest.mark.parametrize(("seconds", "text"), [(9.18, "9.2 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")])
def test_durations(seconds: float, text: str) -> None:
    assert words.seconds_text(seconds) == text


def test_sizes_and_dates() -> None:
    assert words.bytes_text(980 * 2**20) == "980 MiB"
    assert words.bytes_text(1288490189) == "1.2 GiB"
    assert words.parameters_text(11_178_564) == "11.2 M"
    assert words.date_text("20261125-020000-compare-5eed") == "25 November 2026, 02:00 UTC"
    assert words.date_text("my-run") == ""


def test_breakable_names_stay_escaped() -> None:
    assert words.breakable("<b>_x") == "&lt;b&gt;_<wbr>x"
