"""Read a run folder as it grows: messages, finished epochs, where each trial stands. Whole lines only."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transferlib.errors import DamagedFileError
from transferlib.planning.plan import Plan
from transferlib.records import FINISHED, TrialProgress, TrialResult, TrialSpec
from transferlib.runs import RunFolder, reading

NEWEST = 0.3
"""Weight of an arm's newest epoch in what its next ones are thought to take."""


@dataclass(frozen=True)
class TrialRow:
    """Say where one trial stands; a row of the live table."""

    trial: TrialSpec
    state: str
    """pending, running, done, failed, stopped or spared."""
    epoch: int
    """Epochs finished."""
    num_epochs: int
    val_accuracy: Sequence[float] = ()
    """One value a finished epoch."""
    images_per_s: float = 0.0
    data_wait_share: float = 0.0
    eta_s: float | None = None
    """Seconds to the end of the trial's last epoch; None: not known."""
    updated_at: float = 0.0
    """Unix time."""
    reason: str = ""
    step: int = 0
    """Within the epoch that is being trained."""
    num_steps: int = 0
    """Of an epoch; 0: not known."""
    epoch_s: float | None = None
    """Seconds an epoch takes, by the trial's own speed so far; None: it has none yet."""
    is_expected: bool = True
    """Whether it is trained, as far as is known: of a seed whose rate is not decided yet, one row counts."""

    @property
    def best(self) -> float | None:
        """Return the best validation accuracy so far; None before the first epoch."""
        return max(self.val_accuracy, default=None)

    @property
    def epochs_left(self) -> float:
        """Return how many epochs are to come, the steps of the one that is being trained taken off."""
        done = self.epoch + (self.step / self.num_steps if self.num_steps else 0.0)
        return max(0.0, self.num_epochs - done)

    @property
    def place(self) -> str:
        """Return where the training is, as `epoch 3/10, step 40 of 312`."""
        if self.epoch >= self.num_epochs:
            return f"epoch {self.epoch}/{self.num_epochs}, finishing"
        step = f", step {self.step} of {self.num_steps}" if self.num_steps else ""
        return f"epoch {self.epoch + 1}/{self.num_epochs}{step}"


@dataclass(frozen=True)
class Snapshot:
    """Say where a run stands at one moment."""

    status: Mapping[str, Any]
    """`status.json`; empty before the job has begun."""
    rows: tuple[TrialRow, ...]
    """A row a trial, in the plan's order."""
    messages: tuple[str, ...]
    """New since the snapshot before."""
    epochs: tuple[Mapping[str, Any], ...]
    """Rows of `metrics.jsonl`, new since the snapshot before."""
    eta_s: float | None
    """Seconds to the end of the last trial, by the same pace as the trials' own; None: nothing has trained yet."""
    problems: tuple[str, ...] = ()
    """Which files are damaged, a sentence each; what they would say is left out."""

    @property
    def num_trials(self) -> int:
        """Return the number of trials that are trained, as far as is known."""
        return sum(row.is_expected for row in self.rows)

    @property
    def num_spared(self) -> int:
        """Return the number of trials that need no training."""
        return sum(row.state == "spared" for row in self.rows)

    def count(self, state: str) -> int:
        """Return how many of the trials that are trained are in a state."""
        return sum(row.state == state for row in self.rows if row.is_expected)


class Follower:
    """Take snapshots of a run.

    Args:
        run: Its folder.
        plan: Its plan.
        is_new: False for a run that is resumed: what it said before is not said again.
    """

    def __init__(self, run: RunFolder, plan: Plan, *, is_new: bool = True) -> None:
        self._run = run
        self._plan = plan
        self._messages = LineReader(run.log / "messages.txt")
        self._metrics = LineReader(run.metrics)
        self._epoch_s: dict[str, float] = {}
        self._rows = {trial.trial_id: TrialRow(trial, "pending", 0, plan.epochs) for trial in plan.trials}
        self._results: dict[str, TrialResult] = {}
        self._stamps: dict[str, int] = {}
        self._problems: dict[str, str] = {}
        if not is_new:
            self._lines(self._messages)
            self._note_epochs(self._lines(self._metrics))

    def take(self) -> Snapshot:
        """Return where the run stands now."""
        epochs = self._note_epochs(self._lines(self._metrics))
        for trial in self._plan.trials:
            self._refresh(trial)
        expected = {trial.trial_id for trial in self._plan.tuning.expected(self._results)}
        rows = [replace(row, is_expected=trial_id in expected) for trial_id, row in self._rows.items()]
        pace = self._pace(rows)
        timed = tuple(replace(row, eta_s=_row_eta(row, pace)) for row in rows)
        messages = tuple(self._lines(self._messages))
        status = self._status()
        return Snapshot(status, timed, messages, epochs, self._eta(timed, pace), tuple(self._problems.values()))

    def _status(self) -> dict[str, Any]:
        try:
            status = self._run.read_status() or {}
        except DamagedFileError as error:
            self._problems[self._run.status.name] = str(error)
            return {}
        return status

    def _lines(self, reader: LineReader) -> list[str]:
        try:
            return reader.read()
        except DamagedFileError as error:
            self._problems[str(error)] = str(error)
            return []

    def _note_epochs(self, lines: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
        rows = []
        for line in lines:
            try:
                row = json.loads(line)
                arm = self._rows[row["trial_id"]].trial.arm
                seconds = float(row["seconds"])
                self._epoch_s[arm] = (1 - NEWEST) * self._epoch_s.get(arm, seconds) + NEWEST * seconds
            except (ValueError, TypeError, LookupError, RecursionError):
                path = self._run.metrics
                self._problems[path.name] = f"{path} has a line that is none of ours; the others count."
            else:
                rows.append(row)
        return tuple(rows)

    def _refresh(self, trial: TrialSpec) -> None:
        """Read a trial's progress again where it has changed; a trial that Ray gave up on has a result only."""
        folder, before = self._run.trial(trial.trial_id), self._rows[trial.trial_id]
        if trial.trial_id in self._results:
            return
        try:
            result = folder.read_result()
        except DamagedFileError as error:
            self._problems[f"{trial.trial_id} result"] = str(error)
            result = None
        stamp = _changed_at(folder.progress)
        if stamp and stamp != self._stamps.get(trial.trial_id):
            self._stamps[trial.trial_id] = stamp
            try:
                with reading(folder.progress):
                    before = self._rows[trial.trial_id] = self._row(
                        trial, TrialProgress.from_json(folder.progress.read_text())
                    )
            except DamagedFileError as error:
                self._problems[f"{trial.trial_id} progress"] = str(error)
        if result is None or result.state not in FINISHED:
            return
        self._results[trial.trial_id] = result
        if before.state not in FINISHED:
            self._rows[trial.trial_id] = TrialRow(
                trial,
                result.state,
                before.epoch or result.epochs,
                self._plan.epochs,
                before.val_accuracy,
                updated_at=time.time(),
                reason=result.reason,
            )

    def _row(self, trial: TrialSpec, progress: TrialProgress) -> TrialRow:
        # The mean since the trial's start: the speed of the last second says little of the next hour.
        done = progress.totals.train if progress.totals is not None else None
        speed = done.images / done.seconds if done is not None and done.seconds else progress.images_per_s
        # Validation is a forward pass only: about a third of a training step.
        images = self._plan.images["train"] + self._plan.images["val"] / 3
        return TrialRow(
            trial,
            progress.state,
            progress.epoch,
            progress.num_epochs,
            tuple(progress.val_accuracy),
            progress.images_per_s,
            progress.data_wait_share,
            updated_at=progress.updated_at,
            reason=progress.reason,
            step=progress.step,
            num_steps=progress.num_steps,
            epoch_s=images / speed if progress.state == "running" and speed > 0 else None,
        )

    def _pace(self, rows: Sequence[TrialRow]) -> dict[str, float]:
        """Return the seconds that an epoch of each arm takes; all times to the end that are shown come from here.

        By the arm's epochs so far, the newest counting most; before the first of them by the speed of its trials.
        """
        guessed = {row.trial.arm: row.epoch_s for row in rows if row.epoch_s is not None}
        return {**guessed, **self._epoch_s}

    def _eta(self, rows: Sequence[TrialRow], pace: Mapping[str, float]) -> float | None:
        """Return the time left: of all trials side by side, or of the one that takes longest where that is more."""
        if not pace:
            return None
        overall = sum(pace.values()) / len(pace)  # an arm not seen yet counts as the mean arm
        left = [
            row.epochs_left * pace.get(row.trial.arm, overall)
            for row in rows
            if row.is_expected and row.state not in FINISHED
        ]
        return max(sum(left) / self._plan.concurrency, max(left, default=0.0))


def _row_eta(row: TrialRow, pace: Mapping[str, float]) -> float | None:
    seconds = pace.get(row.trial.arm)
    return None if seconds is None or row.state != "running" else row.epochs_left * seconds


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


class LineReader:
    """Read a growing file, a whole line at a time.

    Args:
        path: Need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[str]:
        """Return the lines finished since the last call, without their ends.

        Raises:
            DamagedFileError: It cannot be read.
        """
        try:
            with reading(self._path), open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        end = data.rfind(b"\n") + 1
        self._offset += end
        return data[:end].decode(errors="replace").splitlines()
