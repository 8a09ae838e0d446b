"""What the measurements of the service share: a desk of its own to submit from, made-up images, what a run tells."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SUBMIT = str(Path(sys.executable).with_name("submit"))


@dataclass(frozen=True)
class Desk:
    """A folder to submit from, with a home of its own: nothing of the user's is read or written.

    Attributes:
        folder: Where commands run; run folders are made in `runs` there.
        environment: Of the commands.
    """

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Desk]:
        """Make one for the length of a `with` block."""
        with tempfile.TemporaryDirectory() as name:
            environment = {
                key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
            }
            yield cls(Path(name), {**environment, "HOME": name, "XDG_STATE_HOME": f"{name}/state"})

    def submit(self, *arguments: object) -> str:
        """Run `submit` to its end; return what it printed on stdout.

        Raises:
            RuntimeError: It failed; with what it said.
        """
        command = [SUBMIT, *map(str, arguments)]
        process = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if process.returncode != 0:
            raise RuntimeError(
                f"{' '.join(command)} ended with {process.returncode}:\n{process.stdout}{process.stderr}"
            )
        return process.stdout

    @contextmanager
    def cluster(self, cpus: int, port: int) -> Iterator[str]:
        """Run a one-node cluster for the length of a `with` block; yields its address."""
        self.submit("cluster", "up", "--nodes", 1, "--cpus-per-node", cpus, "--port", port)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            self.submit("cluster", "down", "--force")

    def newest_run(self) -> Run:
        """Return the run that was made last: ids sort by time."""
        return Run(max((self.folder / "runs").iterdir()))


@dataclass(frozen=True)
class Run:
    """What a finished run's own files tell."""

    path: Path

    def timeline(self) -> list[dict[str, Any]]:
        """Return the job's phases, each with `at` (Unix time), `state` and `message`."""
        return _json_lines(self.path / "log/timeline.jsonl")

    def results(self) -> dict[str, dict[str, Any]]:
        """Return `result.json` by trial id."""
        return {path.parent.name: json.loads(path.read_text()) for path in self.path.glob("trials/*/result.json")}

    def began_at(self, trial_id: str) -> float:
        """Return when a trial's process began with it, by the first line of its log; Unix time."""
        return _log_time((self.path / "log" / f"{trial_id}.log").read_text())

    def first_step_at(self) -> float:
        """Return when the first training step of all was done; Unix time."""
        return min(
            self.began_at(trial_id) + float(result["first_step_s"]) for trial_id, result in self.results().items()
        )

    def epochs(self) -> list[dict[str, Any]]:
        """Return a row for each epoch of each trial, with `images`, `train_seconds` and `data_wait_s`."""
        return _json_lines(self.path / "metrics.jsonl")


def write_images(folder: Path, per_class: Mapping[str, int], side: int) -> Path:
    """Write random JPEGs of two classes into split folders; returns the folder."""
    rng = np.random.default_rng(0)
    for split, number in per_class.items():
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for index in range(number):
                pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{index:05}.jpg", quality=85)
    return folder


def cpus_here() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def span(values: Iterable[float], digits: int = 1) -> str:
    """Return "median (least to most)"."""
    numbers = list(values)
    return f"{statistics.median(numbers):.{digits}f} ({min(numbers):.{digits}f} to {max(numbers):.{digits}f})"


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    names = list(header)
    lines = [names, ["---"] * len(names), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine_line() -> str:
    """Return the line at the end of a result: by which command, on what, with which versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "ray"))
    return (
        f"`python {' '.join(sys.argv)}`: {cpus_here()} CPUs, {_processor()}; "
        f"Python {platform.python_version()}, {versions}; transferlib {version('transferlib')}; "
        f"{time.strftime('%Y-%m-%d')}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _log_time(text: str) -> float:
    found = re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", text)
    if found is None:
        raise ValueError(f"no time at the start of the log: {text[:80]!r}")
    return datetime.strptime(found[0], "%Y-%m-%d %H:%M:%S,%f").timestamp()
