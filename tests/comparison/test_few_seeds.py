"""Limits of a few seeds say nothing of training again, and every table says that."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from tests.synthetic_run import Story, write_run
from transferlib.cli.outcome import result_lines
from transferlib.names import FEW_SEEDS_NOTE
from transferlib.report import write_report

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_reports")]


@pytest.mark.parametrize("num_seeds", [1, 2, 3])
def test_limits_of_few_seeds_are_said_to_be_of_these_models(tmp_path: Path, num_seeds: int) -> None:
    story = Story(
        ("last_layers", "full"), tuple(range(num_seeds)), 1, classes=("a", "b"), per_class=(2, 4, 5), epochs=1
    )
    run = write_run(tmp_path, story)
    write_report(run)
    is_few = num_seeds < 3
    assert (FEW_SEEDS_NOTE in result_lines(run, 100)) is is_few
    assert (FEW_SEEDS_NOTE in run.leaderboard("md").read_text()) is is_few
    assert (FEW_SEEDS_NOTE in html.unescape(run.report.read_text())) is is_few
