"""Measure what it costs a training step to be watched, and what a scrape costs the job's own process.

    python benchmarks/telemetry.py --rounds 5 --write docs/benchmarks/...md

Three trials in one process, in changing order, on made-up pictures: one that shows nothing while it trains, one that
shows what the live table needs, one that shows all that is exported. Only the recorder differs. Beside the ratio of
their step times, which is noisy, the time spent in showing is measured itself, as a share of the steps' time: that is
the number to hold against the limit of 0.5 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from transferlib import records
from transferlib.data.augment import Augmentation
from transferlib.data.batches import LocalStream, Renderer
from transferlib.data.cache import DecodedCache
from transferlib.data.decode import Limits
from transferlib.data.manifest import Manifest
from transferlib.data.source import PixelSource
from transferlib.data.sources import list_images
from transferlib.planning.cost import Cost
from transferlib.planning.plan import Plan, plan_trials
from transferlib.records import TrialKey, TrialSpec
from transferlib.runs import RunFolder, TrialFolder, write_atomic
from transferlib.spec import JobSpec
from transferlib.telemetry.exporter import serve_metrics
from transferlib.training.inputs import TrialInputs
from transferlib.training.recorder import TrialRecorder
from transferlib.training.state import TrainingState
from transferlib.training.trial import train_trial
from transferlib.training.worker import LocalWorker

LIMIT = 0.005


class TimedRecorder(TrialRecorder):
    """Show all that is exported, and keep how long that took."""

    step_seconds: float = 0.0
    """Spent in the calls that come with a step."""
    shows: list[float]
    """Seconds of each replacement of `progress.json`."""

    def step_done(self, state: TrainingState, loss: float) -> None:
        began = time.perf_counter()
        super().step_done(state, loss)
        self.step_seconds += time.perf_counter() - began

    def validation_step_done(self, state: TrainingState) -> None:
        began = time.perf_counter()
        super().validation_step_done(state)
        self.step_seconds += time.perf_counter() - began

    def _show(self, state: TrainingState, name: records.TrialState, reason: str = "") -> None:
        began = time.perf_counter()
        super()._show(state, name, reason)
        self.__dict__.setdefault("shows", []).append(time.perf_counter() - began)


class TableRecorder(TimedRecorder):
    """Show what the live table needs: neither totals nor rates, nothing of the machine."""

    def _show(self, state: TrainingState, name: records.TrialState, reason: str = "") -> None:
        began = time.perf_counter()
        progress = records.TrialProgress(
            trial_id=self._inputs.trial.trial_id,
            state=name,
            epoch=len(state.records),
            num_epochs=self._inputs.job.training.epochs,
            step=state.position.step,
            num_steps=self._num_steps,
            images_per_s=state.images_per_s,
            data_wait_share=0.0,
            loss=self._loss,
            val_accuracy=[record.val_accuracy for record in state.records],
            started_at=self._started_at,
            updated_at=time.time(),
            reason=reason,
            num_restarts=self._num_restarts,
        )
        write_atomic(self._folder.progress, progress.to_json() + "\n")
        self._shown, self._shown_at = dataclasses.replace(state.sums), time.monotonic()
        self.__dict__.setdefault("shows", []).append(time.perf_counter() - began)


class QuietRecorder(TimedRecorder):
    """Show nothing while steps are taken."""

    def step_done(self, state: TrainingState, loss: float) -> None: ...

    def validation_step_done(self, state: TrainingState) -> None: ...


@dataclass(frozen=True)
class Timing:
    """Hold what one trial took."""

    step_s: float
    """Mean seconds of a train step."""
    share: float
    """Of the steps' time, train and validation, that went into showing."""
    show_s: float
    """Median seconds of one replacement of `progress.json`."""


def write_pictures(folder: Path, args: argparse.Namespace) -> Path:
    generator = np.random.default_rng(0)
    for split, count in (("train", args.images), ("val", args.images // 4), ("test", 8)):
        for index in range(count):
            target = folder / split / ("a", "b")[index % 2]
            target.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (args.image_size, args.image_size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(target / f"{index:05}.png")
    return folder


def make_spec(data: Path, args: argparse.Namespace) -> JobSpec:
    return JobSpec.from_mapping(
        {
            "data": {"path": str(data), "image_size": args.image_size},
            "models": {"architectures": ["resnet18"], "weights": "none"},
            "strategies": {"names": [args.strategy]},
            "training": {"epochs": args.epochs, "global_batch_size": args.batch_size, "precision": "fp32"},
            "comparison": {"seeds": 1, "lr_candidates": 1},
        }
    )


def make_renderer(folder: Path, spec: JobSpec) -> Renderer:
    limits = Limits(10**7, 10**7)
    listing = list_images(Path(spec.data.path))
    cache = DecodedCache(folder / "cache", spec.short_side, limits)
    facts = cache.ingest([entry.uri for entry in listing.entries])
    Manifest.build(listing, facts, spec.data).save(folder / "manifest.parquet")
    source = PixelSource(str(folder / "manifest.parquet"), str(cache.root), spec.short_side, limits)
    return Renderer(source, Augmentation.from_spec("standard", spec.data.image_size), spec.data.image_size, 0)


@contextmanager
def recorded_by(kind: type[TimedRecorder]) -> Iterator[list[TimedRecorder]]:
    """Let trials be recorded by a kind of recorder; yield those that were made."""
    made: list[TimedRecorder] = []

    def make(inputs: TrialInputs, device: torch.device) -> TimedRecorder:
        made.append(kind(inputs, device))
        return made[-1]

    with patch("transferlib.training.trial.TrialRecorder", make):
        yield made


def time_trial(kind: type[TimedRecorder], folder: Path, spec: JobSpec, renderer: Renderer) -> Timing:
    folder.mkdir(parents=True)
    inputs = TrialInputs(
        job=spec,
        trial=TrialSpec(TrialKey("resnet18", spec.strategies.names[0], 0, 0, 0), 0.01),
        folder=TrialFolder(folder),
        images=renderer.source.open().images,
        source=None,
        stream=LocalStream(renderer),
        threads=len(os.sched_getaffinity(0)),
        run_id="benchmark",
    )
    with recorded_by(kind) as made:
        rows = list(train_trial(inputs, LocalWorker()))
    (recorder,) = made
    # The first epoch warms up caches and allocators.
    steps = recorder._num_steps * (len(rows) - 1)
    return Timing(
        step_s=sum(row.train_seconds for row in rows[1:]) / steps,
        share=recorder.step_seconds / sum(row.seconds - row.checkpoint_s for row in rows),
        show_s=statistics.median(recorder.shows),
    )


def time_scrapes(folder: Path, spec: JobSpec, progress: str, num_trials: int) -> tuple[float, int]:
    """Return the median seconds of a scrape over HTTP, and its bytes, of a job with so many trials running at once."""
    run = RunFolder.create(folder, "compare")
    first = plan_trials(spec)[0]
    trials = tuple(
        dataclasses.replace(first, key=dataclasses.replace(first.key, seed=seed)) for seed in range(num_trials)
    )
    no_cost = Cost(**dict.fromkeys(Cost.__dataclass_fields__, 0))
    plan = Plan(trials, 1, False, 0, 1.0, 2, 1, 1, {"train": 1, "val": 1, "test": 1}, 2, 1, no_cost)
    run.spec.write_text(spec.to_yaml())
    os.environ["TRANSFERLIB_METRICS_DIR"] = str(folder / "metrics")
    run.stop_flag.touch()  # so that nobody is waited for at the end
    seconds, size = [], 0
    with serve_metrics(run, plan):
        (listed,) = (folder / "metrics").glob("*.json")
        address = listed.read_text().split('"targets": [')[1].split('"')[1]
        for index in range(20):
            for trial in trials:
                run.trial(trial.trial_id).path.mkdir(exist_ok=True)
                text = progress.replace('"state": "done"', '"state": "running"')
                write_atomic(run.trial(trial.trial_id).progress, text)
            began = time.perf_counter()
            size = len(urllib.request.urlopen(f"http://{address}/metrics", timeout=30).read())
            seconds += [time.perf_counter() - began] if index else []
    return statistics.median(seconds), size


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strategy", default="feature_extraction", help="the quickest steps pay the largest share")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=54, help="of the job whose scrapes are timed")
    parser.add_argument("--write", type=Path, help="markdown file for the result")
    args = parser.parse_args()
    kinds = {"nothing": QuietRecorder, "live table": TableRecorder, "all series": TimedRecorder}
    timings: dict[str, list[Timing]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spec = make_spec(write_pictures(folder / "pictures", args), args)
        renderer = make_renderer(folder, spec)
        for index in range(args.rounds):
            names = list(kinds)
            for name in names[index % 3 :] + names[: index % 3]:
                timings[name].append(time_trial(kinds[name], folder / f"{name}-{index}", spec, renderer))
        progress = (folder / "all series-0" / "progress.json").read_text()
        scrape_s, scrape_bytes = time_scrapes(folder / "runs", spec, progress, args.trials)
    text = summary(args, timings, scrape_s, scrape_bytes)
    print(text)
    if args.write:
        args.write.write_text(text)


def summary(args: argparse.Namespace, timings: dict[str, list[Timing]], scrape_s: float, scrape_bytes: int) -> str:
    lines = [
        "# What it costs to be watched",
        "",
        f"ResNet-18, `{args.strategy}`, {args.image_size} px, fp32, batch {args.batch_size}; {args.rounds} rounds of "
        f"{args.epochs} epochs of {args.images} images, three recorders in changing order in one process.",
        "",
        "| shown while it trains | a step, ms | over nothing | one update, µs | share of the steps' time |",
        "|---|---|---|---|---|",
    ]
    quiet = timings["nothing"]
    for name, rounds in timings.items():
        ratios = [one.step_s / other.step_s for one, other in zip(rounds, quiet, strict=True)]
        step_ms = 1e3 * statistics.median(timing.step_s for timing in rounds)
        show_us = 1e6 * statistics.median(timing.show_s for timing in rounds)
        share = max(timing.share for timing in rounds)
        over = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        lines.append(f"| {name} | {step_ms:.1f} | {over} | {show_us:.0f} | {share:.2%} |")
    worst = max(timing.share for timing in timings["all series"])
    verdict = "within" if worst < LIMIT else "NOT within"
    lines += [
        "",
        f"The share is the largest over rounds: {worst:.2%}, {verdict} the limit of {LIMIT:.1%}.",
        "",
        f"A scrape of a job with {args.trials} trials that all changed: {1e3 * scrape_s:.1f} ms in the job's own "
        f"process, {scrape_bytes / 1e3:.0f} kB. No training process takes part in it.",
        "",
        f"{len(os.sched_getaffinity(0))} CPUs, {processor()}; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "prometheus-client"))
        + f"; transferlib {version('transferlib')}.",
        "",
    ]
    return "\n".join(lines)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
