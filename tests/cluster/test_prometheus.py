"""A real Prometheus scrapes a real small comparison: what it answers is what the run's own files say."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import promql
from tests.on_ray.jobs import Job, make_run, write_images
from transferlib.runs import RunFolder
from transferlib.telemetry.catalogue import CATALOGUE

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TRIAL = "resnet18-full-s0-c0"
WITHOUT_GPU = {"transferlib_gpu_memory_bytes", "transferlib_gpu_utilisation_ratio"}


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}{path}?{query}", timeout=10) as answer:
            said = json.load(answer)
        assert said["status"] == "success"
        return said["data"]

    def value(self, expression: str) -> float | None:
        """Return the one value of an expression over all that was ever scraped; None: there is none yet."""
        result = self.ask("/api/v1/query", query=expression)["result"]
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None


def wait_until(condition: Callable[[], Any], timeout_s: float = 30) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Path]]:
    """Run Debian's Prometheus with our own configuration; yields it and the folder in which it looks for jobs."""
    folder = tmp_path_factory.mktemp("prometheus")
    metrics = folder / "metrics"
    metrics.mkdir()
    config = yaml.safe_load((ROOT / "cluster/prometheus.yml").read_text())
    config["rule_files"] = [str(ROOT / "cluster/rules/*.yml")]
    for job in config["scrape_configs"]:
        files = [str(metrics / "*.json")] if job["job_name"] == "transferlib" else [str(folder / "none.json")]
        job["file_sd_configs"] = [{"files": files, "refresh_interval": "1s"}]
        job |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(f"http://127.0.0.1:{port}"), metrics
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def scraped(
    prometheus: tuple[Prometheus, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Prometheus, RunFolder]:
    """Run a comparison to its end under the eyes of Prometheus."""
    server, metrics = prometheus
    folder = tmp_path_factory.mktemp("scraped")
    data = write_images(folder / "images", {"train": 120, "val": 10, "test": 10})
    run = make_run(folder / "runs", data, folder / "cache", training={"epochs": 8})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSFERLIB_METRICS_DIR", str(metrics))
        patch.setenv("TRANSFERLIB_METRICS_LINGER_S", "10")
        with Job(run, folder) as job:
            assert job.wait() == 0, job.tail()
    return server, run


def rows(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def test_the_last_scrape_saw_how_the_run_ended(scraped: tuple[Prometheus, RunFolder]) -> None:
    server, run = scraped
    state = f'last_over_time(transferlib_job_state{{run="{run.run_id}",state="done"}}[5m])'
    assert wait_until(lambda: server.value(state)) == 1
    assert server.value(f'last_over_time(transferlib_trials{{run="{run.run_id}",state="done"}}[5m])') == 1


def test_images_and_accuracy_are_what_the_files_say(scraped: tuple[Prometheus, RunFolder]) -> None:
    server, run = scraped
    epochs = rows(run)
    images = server.value(f'max_over_time(transferlib_images_total{{run="{run.run_id}",phase="train"}}[5m])')
    assert images == sum(row["images"] for row in epochs)
    seconds = server.value(f'max_over_time(transferlib_step_seconds_total{{run="{run.run_id}",phase="train"}}[5m])')
    assert seconds == pytest.approx(sum(row["train_seconds"] for row in epochs), rel=0.02)
    best = server.value(f'max_over_time(transferlib_best_validation_accuracy{{run="{run.run_id}"}}[5m])')
    assert best == pytest.approx(max(row["val_accuracy"] for row in epochs))


def test_every_series_of_the_catalogue_was_scraped(scraped: tuple[Prometheus, RunFolder]) -> None:
    server, _ = scraped
    names = set(server.ask("/api/v1/label/__name__/values"))
    missing = {series.name for series in CATALOGUE} - names - WITHOUT_GPU
    assert missing <= {"transferlib_trials_not_finite", "transferlib_trial_restarts_total"}, missing


@pytest.mark.parametrize("where", promql.expressions())
def test_prometheus_accepts_every_expression(scraped: tuple[Prometheus, RunFolder], where: str) -> None:
    server, _ = scraped
    expression = promql.expressions()[where]
    for variable in ("$__rate_interval", "$__interval", "$__range"):
        expression = expression.replace(variable, "1m")
    server.ask("/api/v1/query", query=expression.replace("$run", ".*").replace("$arm", ".*"))
