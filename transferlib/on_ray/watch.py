"""What the job's own process does beside training: keep `metrics.jsonl`, and turn signals into a clean stop."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from transferlib.records import TrialSpec
from transferlib.runs import PARENT_VARIABLE, RunFolder

POLL_S = 0.25

logger = logging.getLogger(__name__)
job_log = logging.getLogger("transferlib.job")


class Watch:
    """Follow a run while its trials train; a context manager.

    Every finished epoch of every trial becomes one line of `metrics.jsonl`, once, in order. SIGTERM, SIGHUP and the
    death of the process that started the job set the run's stop flag; Ctrl-C is the starter's to handle.
    """

    def __init__(self, run: RunFolder, trials: Sequence[TrialSpec]) -> None:
        self._run = run
        self._trials = trials
        self._ended = threading.Event()
        self._parent = int(os.environ.get(PARENT_VARIABLE, "0"))
        self._stamps: dict[str, tuple[int, int, int]] = {}
        self._written = self._read_written()
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self.take_signals()
        self._thread.start()
        return self

    def take_signals(self) -> None:
        """Turn SIGTERM and SIGHUP into a clean stop; again after `ray.init`, which puts a handler of its own there."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.collect()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._run.stop_flag.touch()

    def _follow(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                self.collect()
            except OSError:  # a full disk, say: the rows are still missing and come with the next call
                logger.exception("metrics.jsonl could not be written")
            if self._parent and os.getppid() != self._parent:
                self._run.stop_flag.touch()

    def collect(self) -> None:
        """Append the epochs finished since the last call."""
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        stamps: dict[str, tuple[int, int, int]] = {}
        for trial in self._trials:
            path = self._run.trial(trial.trial_id).metrics
            try:
                state = path.stat()
                # Files are replaced, never written to: one that was not is not opened.
                stamp = (state.st_ino, state.st_mtime_ns, state.st_size)
                if self._stamps.get(trial.trial_id) == stamp:
                    continue
                text = path.read_text()
            except FileNotFoundError:
                continue
            stamps[trial.trial_id] = stamp
            try:
                found = [(int(row["epoch"]), _metrics_row(trial, row)) for row in csv.DictReader(text.splitlines())]
            except (ValueError, TypeError, LookupError, AttributeError):
                logger.warning("%s is damaged; metrics.jsonl lacks its epochs.", path)
                continue
            rows |= {
                (trial.trial_id, epoch): row for epoch, row in found if (trial.trial_id, epoch) not in self._written
            }
        if rows:
            self._run.append_metrics(list(rows.values()))
            for row in rows.values():
                job_log.info(
                    "%(trial_id)s epoch %(epoch)d: train loss %(train_loss).4f, val loss %(val_loss).4f, "
                    "val accuracy %(val_accuracy).4f, %(seconds).1f s",
                    {**row, "epoch": row["epoch"] + 1},
                )
        self._written |= rows.keys()
        self._stamps |= stamps

    def _read_written(self) -> set[tuple[str, int]]:
        if not self._run.metrics.exists():
            return set()
        lines = self._run.metrics.read_text().splitlines(keepends=True)
        # A job that was killed may have left half a line; it is written again.
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):
            self._run.metrics.write_text("".join(whole))
        return set(filter(None, map(_key_of, whole)))


def _key_of(line: str) -> tuple[str, int] | None:
    """Return the trial and epoch of a row of `metrics.jsonl`; None of a damaged one, which is written once more."""
    try:
        row = json.loads(line)
        return str(row["trial_id"]), int(row["epoch"])
    except (ValueError, TypeError, LookupError):
        logger.warning("metrics.jsonl has a line that is none of ours: %.80s", line)
        return None


def _metrics_row(trial: TrialSpec, row: dict[str, str]) -> dict[str, Any]:
    values = {name: json.loads(value.lower() if value in ("True", "False") else value) for name, value in row.items()}
    fold = {"fold": trial.fold} if trial.fold else {}
    of_trial = {"arm": trial.arm, "seed": trial.seed, **fold, "candidate": trial.candidate}
    return {"trial_id": trial.trial_id, **of_trial, **values}
