"""Serve a job's series to Prometheus from the job's own process, for as long as the job lives and is looked at."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from transferlib.data.cache_dir import cache_folder
from transferlib.errors import UsageError
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder
from transferlib.spec import JobSpec
from transferlib.telemetry.catalogue import CATALOGUE, Series
from transferlib.telemetry.discovery import DIR_VARIABLE, announced, metrics_dir
from transferlib.telemetry.feed import Feed
from transferlib.telemetry.linger import MOST_S, Scrapes

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

HOST_VARIABLE = "TRANSFERLIB_METRICS_HOST"
PORT_VARIABLE = "TRANSFERLIB_METRICS_PORT"
TARGET_VARIABLE = "TRANSFERLIB_METRICS_TARGET"
LINGER_VARIABLE = "TRANSFERLIB_METRICS_LINGER_S"
FIRST_SCRAPE_S = 15.0
"""From a job's file to its first scrape: Prometheus passes new targets on every 5 s, takes them up every 5 s (its
`discovery_reload_interval`) and scrapes them within an interval, 5 s in cluster/prometheus.yml."""
_REQUEST_TIMEOUT_S = 10
_EVERYWHERE = ("", "0.0.0.0", "::")


@dataclass(frozen=True)
class Settings:
    """Say where to serve; an administrator's to choose, so from environment variables."""

    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 0
    """0: a free one."""
    target_host: str = ""
    """Name that Prometheus reaches this host by; empty: from `host`."""
    linger_s: float = 0.0
    """Seconds that a job that was never scraped waits for its first scrape when it has ended. Where nothing is said,
    `FIRST_SCRAPE_S` if the folder is named that Prometheus watches, else 0."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read them.

        Raises:
            UsageError: One is no number, or out of range.
        """
        host = environ.get(HOST_VARIABLE, "") or cls.host
        port = _number(environ, PORT_VARIABLE, 65535, "a port, 0 for any free one")
        default_s = FIRST_SCRAPE_S if environ.get(DIR_VARIABLE) else cls.linger_s
        linger_s = _number(environ, LINGER_VARIABLE, MOST_S, "seconds", default_s)
        return cls(host, int(port), environ.get(TARGET_VARIABLE, ""), linger_s)


@contextmanager
def serve_metrics(run: RunFolder, plan: Plan) -> Iterator[None]:
    """Serve a job's series for the length of a `with` block; then wait for the scrape that sees how it ended.

    What stands in the way of serving is told in the run's messages; it never ends a job.

    Args:
        run: Its folder, with `spec.yaml` in it.
        plan: Of the run.
    """
    scrapes = Scrapes()
    with ExitStack() as stack:
        is_served = False
        try:
            settings = Settings.from_environ(os.environ)
            port = stack.enter_context(_listening(_feed(run, plan), settings, scrapes))
            is_served = True
            stack.enter_context(announced(metrics_dir(), run.run_id, f"{_target_host(settings)}:{port}"))
        except (OSError, UsageError) as error:
            what = "Prometheus does not find this job's metrics" if is_served else "No metrics are served"
            _warn(run, f"warning: {what}: {str(error).rstrip('.')}. The job goes on.")
        try:
            yield
        finally:
            if is_served:
                settings = Settings.from_environ(os.environ)
                scrapes.wait_for_last(settings.linger_s, run.stop_flag.exists)


@contextmanager
def _listening(feed: Feed, settings: Settings, scrapes: Scrapes) -> Iterator[int]:
    """Answer a GET of any path with the series, each in a thread of its own; yield the port."""
    from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(feed))
    try:
        server, thread = start_http_server(settings.port, settings.host, registry)
    except OSError as error:
        raise OSError(
            f"{settings.host}:{settings.port} cannot be listened at ({error.strerror}). "
            f"Set {HOST_VARIABLE} and {PORT_VARIABLE} to what is free; without the port, a free one is taken."
        ) from None
    # A client that stalls is given up, and nothing is said of one that went away in the middle.
    handler: Any = server.RequestHandlerClass
    server.RequestHandlerClass = type("_Handler", (handler,), {"timeout": _REQUEST_TIMEOUT_S})
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.set_app(_counted(make_wsgi_app(registry), scrapes))
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _counted(series_app: WSGIApplication, scrapes: Scrapes) -> WSGIApplication:
    """Wrap the application that answers with the series: each of its answers to a scrape is noted when it is sent."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began_at = time.monotonic()
        body: list[bytes] = list(series_app(environ, start_response))
        is_scrape = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"] != "/favicon.ico"
        return _Answer(body, scrapes, began_at) if is_scrape else body

    return app


class _Answer:
    """Be a WSGI answer that knows when its last byte has been handed to the system."""

    def __init__(self, body: list[bytes], scrapes: Scrapes, began_at: float) -> None:
        self._body = body
        self._scrapes = scrapes
        self._began_at = began_at

    def __len__(self) -> int:
        return len(self._body)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._body
        self._scrapes.note(self._began_at)


class _Collector:
    """Turn samples into what prometheus_client writes; a series without a value now keeps its help."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def describe(self) -> list[Metric]:
        """Return every family, without samples: the client asks when the collector is registered."""
        return [_family(series) for series in CATALOGUE]

    def collect(self) -> Iterator[Metric]:
        """Yield every family of the catalogue with what it has now."""
        families = {series.name: (series, _family(series)) for series in CATALOGUE}
        for sample in self._feed.scrape():
            series, family = families[sample.name]
            if set(sample.labels) != set(series.labels):
                raise ValueError(f"{sample.name} has labels {sorted(sample.labels)}, not {sorted(series.labels)}")
            family.add_sample(sample.name, sample.labels, sample.value)
        for _, family in families.values():
            yield family


def _family(series: Series) -> Metric:
    from prometheus_client.metrics_core import Metric

    name = series.name.removesuffix({"counter": "_total", "info": "_info", "gauge": ""}[series.kind])
    return Metric(name, series.help, series.kind)


def _feed(run: RunFolder, plan: Plan) -> Feed:
    spec = JobSpec.load(run.spec)
    cache = spec.data.cache
    cache_dir = None if cache.mode == "none" else cache_folder(cache)
    return Feed(run, plan, verb=spec.verb, cache_dir=cache_dir)


def _target_host(settings: Settings) -> str:
    if settings.target_host:
        return settings.target_host
    if settings.host in _EVERYWHERE:
        return socket.gethostname()
    return f"[{settings.host}]" if ":" in settings.host else settings.host


def _number(environ: Mapping[str, str], name: str, most: float, what: str, default: float = 0.0) -> float:
    text = environ.get(name, "") or str(default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise UsageError(f"{name} is {text!r}; give {what}, 0 to {most:g}.")
    return value


def _warn(run: RunFolder, line: str) -> None:
    with open(run.log / "messages.txt", "a", encoding="utf-8") as file:
        file.write(line + "\n")
