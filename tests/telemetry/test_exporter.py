"""What Prometheus gets, over HTTP."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import yaml
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.telemetry.run_folders import RUN_ID, begin_run, end, show
from transferlib.errors import UsageError
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder
from transferlib.telemetry import exporter
from transferlib.telemetry.catalogue import CATALOGUE
from transferlib.telemetry.exporter import FIRST_SCRAPE_S, Settings, serve_metrics
from transferlib.telemetry.linger import MOST_S


@pytest.fixture(autouse=True)
def metrics_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "metrics"
    monkeypatch.setenv("TRANSFERLIB_METRICS_DIR", str(folder))
    monkeypatch.setenv("TRANSFERLIB_METRICS_LINGER_S", "0")
    for name in ("HOST", "PORT", "TARGET"):
        monkeypatch.delenv(f"TRANSFERLIB_METRICS_{name}", raising=False)
    return folder


@pytest.fixture
def job(tmp_path: Path) -> tuple[RunFolder, Plan]:
    return begin_run(tmp_path)


def target(folder: Path) -> str:
    (listed,) = json.loads((folder / f"{RUN_ID}.json").read_text())
    (found,) = listed["targets"]
    return str(found)


def get(address: str, accept: str = "*/*") -> str:
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def test_what_is_served_is_the_catalogue_and_the_runs_numbers(
    job: tuple[RunFolder, Plan], metrics_folder: Path
) -> None:
    run, plan = job
    run.set_status("running")
    with serve_metrics(run, plan):
        show(run, plan.trials[0])
        families = {family.name: family for family in text_string_to_metric_families(get(target(metrics_folder)))}
        run_to_last_scrape(metrics_folder)
    by_name = {
        series.name.removesuffix("_total") if series.kind == "counter" else series.name: series for series in CATALOGUE
    }
    assert families.keys() == by_name.keys()
    for name, family in families.items():
        series = by_name[name]
        assert family.documentation == series.help
        assert family.type == ("counter" if series.kind == "counter" else "gauge")
        for sample in family.samples:
            assert sample.name == series.name
            assert set(sample.labels) == set(series.labels)
    trained = [s.value for s in families["transferlib_images"].samples if s.labels["phase"] == "train"]
    assert trained == [62.0]


def run_to_last_scrape(folder: Path) -> None:
    """Scrape again and again from now on, as Prometheus does, until the job is gone."""
    address = target(folder)

    def scrape() -> None:
        while True:
            try:
                get(address)
            except OSError:
                return
            time.sleep(0.05)

    threading.Thread(target=scrape, daemon=True).start()


def test_the_client_library_is_loaded_only_where_metrics_are_served() -> None:
    code = "import sys, transferlib.telemetry.exporter; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_openmetrics_is_served_to_who_asks_for_it(job: tuple[RunFolder, Plan], metrics_folder: Path) -> None:
    run, plan = job
    with serve_metrics(run, plan):
        show(run, plan.trials[0])
        text = get(target(metrics_folder), "application/openmetrics-text; version=1.0.0")
        run_to_last_scrape(metrics_folder)
    families = {family.name: family for family in openmetrics.text_string_to_metric_families(text)}
    assert families["transferlib_images"].type == "counter"
    assert families["transferlib_job"].type == "info"


def test_a_job_waits_for_the_scrape_that_sees_how_it_ended(job: tuple[RunFolder, Plan], metrics_folder: Path) -> None:
    run, plan = job
    seen: list[str] = []

    def look_when_it_has_ended(address: str, is_ended: threading.Event) -> None:
        is_ended.wait(10)
        seen.append(get(address))

    is_ended = threading.Event()
    with serve_metrics(run, plan):
        run.set_status("running")
        address = target(metrics_folder)
        get(address)
        last = threading.Thread(target=look_when_it_has_ended, args=(address, is_ended))
        last.start()
        show(run, plan.trials[0], "done")
        end(run, plan.trials[0])
        run.set_status("done")
        is_ended.set()
    last.join()
    assert 'transferlib_job_state{run="20261125-014503-compare-3fa9",state="done"} 1.0' in seen[0]
    assert "transferlib_validation_accuracy{" in seen[0]
    assert not (metrics_folder / f"{RUN_ID}.json").exists()


def test_a_job_that_nobody_scraped_ends_at_once(job: tuple[RunFolder, Plan], metrics_folder: Path) -> None:
    began = time.monotonic()
    with serve_metrics(*job):
        address = target(metrics_folder)
    assert time.monotonic() - began < 5.0
    with pytest.raises(OSError, match="refused"):
        get(address)


def test_a_short_job_waits_for_its_first_scrape_where_it_was_told_to(
    job: tuple[RunFolder, Plan], metrics_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFERLIB_METRICS_LINGER_S", "20")
    began = time.monotonic()
    with serve_metrics(*job):
        run_to_last_scrape(metrics_folder)
    assert time.monotonic() - began < 10.0


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, 0.0, id="nothing says that somebody looks"),
        pytest.param({"TRANSFERLIB_METRICS_DIR": "/metrics"}, 15.0, id="Prometheus watches a folder"),
        pytest.param({"TRANSFERLIB_METRICS_DIR": "/metrics", "TRANSFERLIB_METRICS_LINGER_S": "0"}, 0.0, id="told not"),
        pytest.param({"TRANSFERLIB_METRICS_LINGER_S": "20"}, 20.0, id="found in another way"),
    ],
)
def test_a_job_waits_for_its_first_scrape_where_somebody_may_come(environ: dict[str, str], expected: float) -> None:
    assert Settings.from_environ(environ).linger_s == expected


def test_prometheus_comes_to_a_new_job_in_the_time_that_it_waits() -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "cluster/prometheus.yml").read_text())
    (scrape,) = [one for one in config["scrape_configs"] if one["job_name"] == "transferlib"]
    (found,) = scrape["file_sd_configs"]
    seconds = sum(int(text.removesuffix("s")) for text in (found["refresh_interval"], scrape["scrape_interval"]))
    assert seconds < FIRST_SCRAPE_S < MOST_S


def messages(run: RunFolder) -> str:
    path = run.log / "messages.txt"
    return path.read_text() if path.exists() else ""


def test_a_port_that_is_taken_is_a_warning_and_the_job_goes_on(
    job: tuple[RunFolder, Plan], metrics_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("TRANSFERLIB_METRICS_PORT", str(port))
        has_run = False
        with serve_metrics(*job):
            has_run = True
    assert has_run
    assert messages(job[0]).startswith(f"warning: No metrics are served: 127.0.0.1:{port} cannot be listened at")
    assert "The job goes on." in messages(job[0])
    assert not metrics_folder.exists()


def test_a_folder_that_cannot_be_written_is_a_warning_and_metrics_are_served(
    job: tuple[RunFolder, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRANSFERLIB_METRICS_DIR", str(tmp_path / "file" / "metrics"))
    port = free_port()
    monkeypatch.setenv("TRANSFERLIB_METRICS_PORT", str(port))
    job[0].stop_flag.touch()
    with serve_metrics(*job):
        assert "warning: Prometheus does not find this job's metrics" in messages(job[0])
    assert messages(job[0]).count("\n") == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("name", "text"), [("PORT", "http"), ("PORT", "70000"), ("LINGER_S", "-1"), ("LINGER_S", "nan")]
)
def test_a_setting_that_is_none_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"TRANSFERLIB_METRICS_{name} is '{text}'; give"):
        Settings.from_environ({f"TRANSFERLIB_METRICS_{name}": text})


def test_an_error_of_the_job_passes_through(job: tuple[RunFolder, Plan], metrics_folder: Path) -> None:
    with pytest.raises(KeyError), serve_metrics(*job):
        raise KeyError
    assert list(metrics_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("host", "named", "expected"),
    [
        ("127.0.0.1", "", "127.0.0.1"),
        ("0.0.0.0", "", socket.gethostname()),
        ("0.0.0.0", "head", "head"),
        ("127.0.0.1", "host.docker.internal", "host.docker.internal"),
    ],
)
def test_prometheus_is_told_a_name_at_which_it_reaches_the_job(
    job: tuple[RunFolder, Plan],
    metrics_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    named: str,
    expected: str,
) -> None:
    monkeypatch.setenv("TRANSFERLIB_METRICS_HOST", host)
    monkeypatch.setenv("TRANSFERLIB_METRICS_TARGET", named)
    with serve_metrics(*job):
        assert target(metrics_folder).rpartition(":")[0] == expected


@pytest.fixture
def slow_client() -> Iterator[Callable[[str], socket.socket]]:
    opened: list[socket.socket] = []

    def connect(address: str) -> socket.socket:
        host, _, port = address.rpartition(":")
        opened.append(socket.create_connection((host, int(port)), timeout=10))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def test_a_client_that_stalls_keeps_nobody_waiting(
    job: tuple[RunFolder, Plan], metrics_folder: Path, slow_client: Callable[[str], socket.socket]
) -> None:
    with serve_metrics(*job):
        address = target(metrics_folder)
        slow_client(address).sendall(b"GET /metrics HTT")
        assert "transferlib_job_info" in get(address)
        run_to_last_scrape(metrics_folder)


def test_a_client_that_stalls_is_given_up(
    job: tuple[RunFolder, Plan],
    metrics_folder: Path,
    slow_client: Callable[[str], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(exporter, "_REQUEST_TIMEOUT_S", 0.2)
    with serve_metrics(*job):
        stalled = slow_client(target(metrics_folder))
        stalled.sendall(b"GET /metrics HTT")
        assert stalled.recv(1) == b""
    assert capfd.readouterr().err == ""


def test_nothing_is_said_of_a_client_that_goes_away_in_the_middle(
    job: tuple[RunFolder, Plan],
    metrics_folder: Path,
    slow_client: Callable[[str], socket.socket],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with serve_metrics(*job):
        address = target(metrics_folder)
        client = slow_client(address)
        client.sendall(b"GET /metrics HTT")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        get(address)
        run_to_last_scrape(metrics_folder)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("method", "code"), [("HEAD", 405), ("POST", 405), ("OPTIONS", 200)])
def test_what_is_no_get_is_answered_and_is_no_scrape(
    job: tuple[RunFolder, Plan], metrics_folder: Path, method: str, code: int
) -> None:
    began = time.monotonic()
    with serve_metrics(*job):
        assert requests.request(method, f"http://{target(metrics_folder)}/metrics", timeout=10).status_code == code
    assert time.monotonic() - began < 5.0  # a scraper would have been waited for
