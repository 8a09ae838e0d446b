"""From a run folder to samples: the files that the job and its trials write are all that the exporter knows."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from transferlib.data.manifest import Manifest
from transferlib.errors import DataError, NonFiniteLossError
from transferlib.planning.plan import Plan
from transferlib.records import FINISHED
from transferlib.runs import RunFolder
from transferlib.telemetry.catalogue import JOB_STATES, PREFIX, TRIAL_STATES
from transferlib.telemetry.trial_feed import Sample, TrialFeed


class Feed:
    """Follow a run for its exporter, from when its job starts.

    Args:
        run: Its folder.
        plan: Its plan.
        verb: compare or train.
        cache_dir: Of the decoded cache on this node; None: the run has none.
    """

    def __init__(self, run: RunFolder, plan: Plan, *, verb: str, cache_dir: Path | None) -> None:
        self._run = run
        self._plan = plan
        self._verb = verb
        self._places = {"runs": run.path} | ({"cache": cache_dir} if cache_dir is not None else {})
        self._trials = [TrialFeed(run.run_id, trial, run.trial(trial.trial_id)) for trial in plan.trials]
        self._status: dict[str, Any] = {}
        self._images: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def scrape(self) -> list[Sample]:
        """Return a sample of each series that there is now; one call is one scrape."""
        with self._lock:
            for trial in self._trials:
                trial.refresh()
            return [*self._job(), *self._arms(), *(sample for trial in self._trials for sample in trial.scrape())]

    def _job(self) -> Iterator[Sample]:
        self._read_status()
        yield self._sample("job_info", 1, verb=self._verb)
        if self._status:
            for state in JOB_STATES:
                yield self._sample("job_state", state == self._status["state"], state=state)
        counts: Counter[str] = Counter(trial.state for trial in self._expected())
        for state in TRIAL_STATES:
            yield self._sample("trials", counts[state], state=state)
        said_at = [trial.progress.updated_at for trial in self._trials if trial.progress is not None]
        said_at += [self._status["updated_at"]] if self._status else []
        if said_at:
            yield self._sample("last_progress_timestamp_seconds", max(said_at))
        yield from self._data()
        for place, path in self._places.items():
            yield self._sample("disk_free_bytes", free_bytes(path), place=place)

    def _data(self) -> Iterator[Sample]:
        if self._images is None:
            self._images = count_images(self._run.manifest)
        if self._images is not None:
            used, skipped = self._images
            yield self._sample("images_used", used)
            yield self._sample("images_skipped", skipped)

    def _arms(self) -> Iterator[Sample]:
        by_arm: dict[str, list[TrialFeed]] = {}
        for trial in self._expected():
            by_arm.setdefault(trial.trial.arm, []).append(trial)
        for arm, trials in by_arm.items():
            spec = trials[0].trial
            yield self._sample("arm_info", 1, arm=arm, architecture=spec.architecture, strategy=spec.strategy)
            best = max((trial.best_accuracy for trial in trials if trial.best_accuracy is not None), default=None)
            if best is not None:
                yield self._sample("best_validation_accuracy", best, arm=arm)
            yield self._sample("budget_left_epochs", self._budget_left(trials), arm=arm)
            yield self._sample("trials_not_finite", sum(_is_not_finite(trial) for trial in trials), arm=arm)
            restarts = sum(trial.progress.num_restarts for trial in trials if trial.progress is not None)
            yield self._sample("trial_restarts_total", restarts, arm=arm)

    def _expected(self) -> list[TrialFeed]:
        """Return the trials that are trained, as far as is known; the others have nothing to show."""
        results = {trial.trial.trial_id: trial.result for trial in self._trials if trial.result is not None}
        expected = {trial.trial_id for trial in self._plan.tuning.expected(results)}
        return [trial for trial in self._trials if trial.trial.trial_id in expected]

    def _budget_left(self, trials: Sequence[TrialFeed]) -> int:
        return sum(self._plan.epochs - trial.epochs_finished for trial in trials if trial.state not in FINISHED)

    def _read_status(self) -> None:
        try:
            self._status = self._run.read_status() or self._status
        except (OSError, ValueError):
            return  # what it said before stands

    def _sample(self, name: str, value: float, **labels: str) -> Sample:
        return Sample(PREFIX + name, {"run": self._run.run_id, **labels}, float(value))


def count_images(manifest: Path) -> tuple[int, int] | None:
    """Return how many images a manifest uses, and how many files that were meant as images cannot serve as one.

    Returns:
        None before the manifest is written.
    """
    if not manifest.exists():
        return None
    try:
        read = Manifest.load(manifest)
    except DataError:  # the job says so; here there is nothing to count
        return None
    return int(pc.sum(pc.equal(read.table["status"], "used")).as_py() or 0), read.num_bad


def free_bytes(path: Path) -> int:
    """Return what this user may still write where a path is or will be, bytes."""
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


def _is_not_finite(trial: TrialFeed) -> bool:
    return trial.result is not None and trial.result.error == NonFiniteLossError.__name__
