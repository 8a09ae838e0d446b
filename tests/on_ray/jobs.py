"""Small real jobs for the Ray tests: a run folder as the command line makes it, and the job process beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from transferlib.data.sources import list_images
from transferlib.planning.machine import Machine
from transferlib.planning.plan import make_plan
from transferlib.runs import RunFolder
from transferlib.spec import JobSpec

ROOT = Path(__file__).parents[2]
MACHINE = Machine(cpus=2, gpus=0, memory_bytes=16 << 30, disk_free_bytes=64 << 30)


def write_images(folder: Path, per_class: dict[str, int], side: int = 36) -> Path:
    """Write noisy two-class images whose classes differ in colour, split by folder."""
    generator = np.random.default_rng(0)
    for split, count in per_class.items():
        for label, colour in (("blue", (90, 100, 150)), ("red", (150, 100, 90))):
            target = folder / split / label
            target.mkdir(parents=True)
            for index in range(count):
                pixels = generator.normal(colour, 60, (side, side, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(target / f"{index:03}.png")
    return folder


def make_run(
    folder: Path, data: Path, cache: Path, *, machine: Machine = MACHINE, folds: int | None = None, **sections: Any
) -> RunFolder:
    """Make a run folder with spec and plan for a machine, as `submit compare` does."""
    mapping: dict[str, Any] = {
        "data": {"path": str(data), "image_size": 32, "cache": {"dir": str(cache)}, "split": {"folds": folds}},
        "models": {"architectures": ["resnet18"], "weights": "none"},
        "strategies": {"names": ["full"]},
        "training": {"epochs": 4, "global_batch_size": 8, "precision": "fp32", "early_stopping_patience": 0},
        "comparison": {"seeds": 1, "lr_candidates": 1},
        "resources": {"threads_per_worker": 1},
    }
    for name, values in sections.items():
        mapping[name] = {**mapping.get(name, {}), **values}
    spec = JobSpec.from_mapping(mapping)
    run = RunFolder.create(folder, spec.verb)
    run.spec.write_text(spec.to_yaml())
    run.plan.write_text(make_plan(spec, list_images(data), machine).to_json())
    return run


class Job:
    """The process of a job; a context manager that leaves no process behind."""

    def __init__(self, run: RunFolder, home: Path) -> None:
        self.run = run
        self._home = home

    def __enter__(self) -> Job:
        environment = {**os.environ, "HOME": str(self._home), "TRANSFERLIB_PARENT_PID": str(os.getpid())}
        with open(self.run.log / "job.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "jobs/compare.py"), str(self.run.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait(self, timeout_s: float = 200) -> int:
        """Return the job's exit code."""
        return self.process.wait(timeout_s)

    def wait_until(self, condition: Callable[[], Any], timeout_s: float = 90) -> Any:
        """Return the condition's value as soon as it is true; the job must still be running."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            assert self.process.poll() is None, f"the job ended: {self.tail()}"
            time.sleep(0.02)
        raise AssertionError(f"waited {timeout_s} s in vain: {self.tail()}")

    def tail(self) -> str:
        """Return the end of the job's log."""
        return (self.run.log / "job.log").read_text()[-4000:]


def run_to_end(run: RunFolder, home: Path) -> int:
    """Run a job to its end and return its exit code."""
    with Job(run, home) as job:
        return job.wait()


def num_epochs(run: RunFolder, trial_id: str) -> int:
    """Return how many epochs a trial has finished."""
    path = run.trial(trial_id).metrics
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def process_ids(run: RunFolder, trial_id: str, rank: int = 0) -> list[int]:
    """Return the processes that trained a trial so far, oldest first, from its log."""
    path = run.log / (f"{trial_id}.log" if rank == 0 else f"{trial_id}.rank{rank}.log")
    return [int(pid) for pid in re.findall(r"in process (\d+)", path.read_text())] if path.exists() else []
