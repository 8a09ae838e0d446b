"""Ray's dashboard in a real browser, with the token: a job under its run id, its trials by name, its log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.on_ray.jobs import write_images
from transferlib.clusters import ClusterRecord
from transferlib.on_ray import local_cluster
from transferlib.on_ray.local_cluster import start_cluster, stop_cluster
from transferlib.on_ray.node_shares import NodeShare

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]

BROWSER = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
TRIAL = "resnet18-full-s0-c0"
OPTIONS = (
    "--arch resnet18 --weights none --strategy full --seeds 1 --lr-candidates 1 --epochs 1 --image-size 32 "
    "--global-batch-size 8 --threads-per-worker 1 --cache-dir cache"
)


@dataclass(frozen=True)
class Finished:
    """A job that a cluster has run."""

    record: ClusterRecord
    run_id: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("dashboard")
    data = write_images(folder / "images", {"train": 20, "val": 4, "test": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setenv("HOME", str(folder))
        record = start_cluster([NodeShare("node-1", 2, (), 2 << 30, 200 << 20)], local_cluster._free_port())
        try:
            command = [str(Path(sys.executable).with_name("submit")), "compare", "--data", str(data), *OPTIONS.split()]
            subprocess.run(command, cwd=folder, env=dict(os.environ), check=True, timeout=120, capture_output=True)
            (run,) = (folder / "runs").glob("2*")
            yield Finished(record, run.name)
        finally:
            stop_cluster(record)


def test_the_job_its_trials_and_its_log_are_shown_to_who_has_the_token(finished: Finished) -> None:
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        page.goto(finished.record.address)
        token = page.locator("input[type=password]")
        token.fill(Path(finished.record.token_path).read_text().strip())
        page.get_by_role("button", name="Submit").click()
        expect(token).to_have_count(0, timeout=15_000)
        page.goto(f"{finished.record.address}/#/jobs")
        expect(page.get_by_text(finished.run_id).first).to_be_visible(timeout=15_000)
        page.goto(f"{finished.record.address}/#/jobs/{finished.run_id}")
        expect(page.get_by_text(f"exec python compare.py {finished.run_id}").first).to_be_visible(timeout=15_000)
        expect(page.get_by_text("running: 1 trial to train").first).to_be_visible(timeout=15_000)
        page.get_by_text("Task Table").click()
        page.get_by_label("Page Size").first.fill("100")
        expect(page.get_by_role("cell", name=TRIAL, exact=True).first).to_be_visible(timeout=15_000)
        page.screenshot(path=os.environ.get("DASHBOARD_PICTURE", os.devnull), type="png", full_page=True)
        browser.close()
