"""The report as a browser shows it; needs Debian's chromium (make test-cluster)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.synthetic_run import Story, write_run
from transferlib.report import write_report

pytestmark = pytest.mark.cluster

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs"), Story())
    write_report(run)
    return run.report


def chromium(tmp_path: Path, *arguments: str) -> str:
    browser = shutil.which("chromium")
    assert browser is not None, "apt-get install chromium"
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_browser_finds_the_verdict_and_every_figure(report: Path, tmp_path: Path) -> None:
    dom = chromium(tmp_path, "--dump-dom", report.as_uri())
    assert "Verdict" in dom
    assert dom.count("<svg") == report.read_text().count("<svg") > 3
    assert "Worst mistakes" in dom


@pytest.mark.parametrize("width", [390, 1200])
def test_page_is_drawn_and_no_wider_than_its_window(report: Path, tmp_path: Path, width: int) -> None:
    picture = tmp_path / "report.png"
    chromium(tmp_path, f"--window-size={width},2000", f"--screenshot={picture}", report.as_uri())
    pixels = np.asarray(Image.open(picture).convert("L"), np.float32)
    assert pixels.std() > 5.0
    assert pixels[:, -4:].std() < 5.0, "something runs over the right edge"
