"""What one trial's files say, as samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from transferlib.errors import DamagedFileError
from transferlib.records import FINISHED, TrialProgress, TrialResult, TrialSpec, TrialState, TrialTotals
from transferlib.runs import TrialFolder, reading
from transferlib.telemetry.catalogue import PHASES, PREFIX

SCRAPES_AFTER_END = 3
"""A trial that ended is seen this many times more, so that its last values are, and then its series go away."""


@dataclass(frozen=True)
class Sample:
    """Hold one value of one series."""

    name: str
    labels: dict[str, str]
    value: float


class TrialFeed:
    """Follow one trial.

    Args:
        run_id: Of the run.
        trial: Which.
        folder: Of the trial; it may not exist yet.
    """

    def __init__(self, run_id: str, trial: TrialSpec, folder: TrialFolder) -> None:
        self.trial = trial
        self.progress: TrialProgress | None = None
        self.result: TrialResult | None = None
        self._folder = folder
        self._labels = {
            "run": run_id,
            "arm": trial.arm,
            "seed": trial.key.seed_name,
            "candidate": str(trial.candidate),
        }
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._num_scrapes_after_end = 0
        self.refresh()
        # A job that is resumed finds how far the one before came. That is no sign of life of its own trial.
        self._left_at = self.progress.updated_at if self.progress is not None else None

    def refresh(self) -> None:
        """Read again what changed; a file that cannot be read now is read at the next call."""
        if self.result is None and (text := self._changed_text(self._folder.result)) is not None:
            with suppress(DamagedFileError), reading(self._folder.result):  # the job says so
                result = TrialResult.from_json(text)
                self.result = result if result.state in FINISHED else None
        if (text := self._changed_text(self._folder.progress)) is not None:
            # Emptied by a power cut: what was read before stands.
            with suppress(DamagedFileError), reading(self._folder.progress):
                self.progress = TrialProgress.from_json(text)

    @property
    def state(self) -> TrialState:
        """Return where the trial stands in this job."""
        if self.result is not None:
            return self.result.state
        if self.progress is None or self.progress.updated_at == self._left_at:
            return "pending"
        return self.progress.state

    @property
    def best_accuracy(self) -> float | None:
        """Return the best validation accuracy of any epoch so far."""
        if self.progress is not None and self.progress.val_accuracy:
            return max(self.progress.val_accuracy)
        return self.result.val_accuracy if self.result is not None and self.result.state == "done" else None

    @property
    def epochs_finished(self) -> int:
        """Return how many epochs are finished."""
        return self.progress.epoch if self.progress is not None else 0

    def scrape(self) -> Iterator[Sample]:
        """Yield the trial's samples: none before it begins, and none once it has been seen often enough after its end.

        Each call counts as one look.
        """
        state, progress = self.state, self.progress
        if progress is None or state == "pending":
            return
        if state != "running":
            self._num_scrapes_after_end += 1
            if self._num_scrapes_after_end > SCRAPES_AFTER_END:
                return
        if progress.totals is not None:
            yield from self._counters(progress.totals)
            if progress.totals.train.steps > 0:
                yield self._sample("loss", progress.loss)
        yield from self._gauges(progress)

    def _counters(self, totals: TrialTotals) -> Iterator[Sample]:
        for phase in PHASES:
            of_phase = totals.of(phase)
            yield self._sample("images_total", of_phase.images, phase=phase)
            yield self._sample("steps_total", of_phase.steps, phase=phase)
            yield self._sample("step_seconds_total", of_phase.seconds, phase=phase)
            yield self._sample("data_wait_seconds_total", of_phase.data_wait_s, phase=phase)
        yield self._sample("steps_redone_total", totals.steps_redone)
        yield self._sample("checkpoint_seconds_total", totals.checkpoint_s)
        yield self._sample("checkpoint_bytes_total", totals.checkpoint_bytes)

    def _gauges(self, progress: TrialProgress) -> Iterator[Sample]:
        yield self._sample("epoch", progress.epoch)
        for stage, rate in progress.stage_lrs.items():
            yield self._sample("learning_rate", rate, stage=stage)
        readings = {
            "validation_accuracy": progress.val_accuracy[-1] if progress.val_accuracy else None,
            "validation_loss": progress.val_loss,
            "memory_bytes": progress.memory_bytes,
            "gpu_memory_bytes": progress.gpu_memory_bytes,
            "gpu_utilisation_ratio": progress.gpu_utilisation,
        }
        for name, value in readings.items():
            if value is not None:
                yield self._sample(name, value)

    def _sample(self, name: str, value: float, **labels: str) -> Sample:
        return Sample(PREFIX + name, {**self._labels, **labels}, float(value))

    def _changed_text(self, path: Path) -> str | None:
        """Return a file's text where it is another than at the last call."""
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if self._stamps.get(path) == stamp:
                return None
            text = path.read_text()
        except (OSError, UnicodeDecodeError):
            return None
        self._stamps[path] = stamp
        return text
