"""What a run says where there is no terminal: a line an epoch, and one now and then within a long epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from transferlib.cli.following import Snapshot, TrialRow
from transferlib.words import count, duration

STILL_S = 30.0
"""After so long without a line the running trials say where they are."""


class PlainView:
    """Print lines as they come.

    Args:
        file: Where to; None: stderr.
        now: A clock, seconds.
    """

    def __init__(self, file: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._now = now
        self._said_at = now()
        self._places: dict[str, str] = {}
        self._told: set[str] = set()
        self._said = ""

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def say(self, text: str) -> None:
        """Print a line of talk."""
        self._said_at = self._now()
        print(text, file=self._file or sys.stderr, flush=True)

    def show(self, snapshot: Snapshot) -> None:
        """Print what is new: messages, phases, finished epochs, failed trials; where nothing is, how far trials are."""
        for message in snapshot.messages:
            self.say(message)
        phase = phase_of(snapshot.status)
        if phase and phase != self._said:
            self._said = phase
            self.say(phase)
        rows = {row.trial.trial_id: row for row in snapshot.rows}
        for epoch in snapshot.epochs:
            self.say(_epoch_line(epoch, rows[epoch["trial_id"]]))
        if snapshot.epochs and snapshot.eta_s is not None:
            finished = snapshot.count("done") + snapshot.count("failed")
            left = f", about {duration(snapshot.eta_s)} left" if finished < snapshot.num_trials else ""
            self._say_once(
                f"{finished} of {count(snapshot.num_trials, 'trial')} finished{left}", f"finished {finished}"
            )
        for row in snapshot.rows:
            if row.state == "failed":
                self._say_once(f"{row.trial.trial_id} failed: {row.reason}", row.trial.trial_id)

        if self._now() - self._said_at >= STILL_S:
            for row in snapshot.rows:
                self._say_place(row)

    def _say_place(self, row: TrialRow) -> None:
        """Say how far a running trial is, if it has moved."""
        trial_id = row.trial.trial_id
        if row.state == "running" and row.num_steps and self._places.get(trial_id) != row.place:
            self._places[trial_id] = row.place
            left = f"  about {duration(row.eta_s)} to its end" if row.eta_s is not None else ""
            speed = f"  {row.images_per_s:,.0f} images/s" if row.images_per_s >= 1 else ""
            self.say(f"{trial_id}  {row.place}{speed}{left}")

    def _say_once(self, text: str, key: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self.say(text)


def _epoch_line(epoch: Mapping[str, Any], row: TrialRow) -> str:
    best = max([epoch["val_accuracy"], *row.val_accuracy[: epoch["epoch"] + 1]])
    speed = epoch["images"] / epoch["train_seconds"] if epoch["train_seconds"] else 0.0
    wait = epoch["data_wait_s"] / epoch["seconds"] if epoch["seconds"] else 0.0
    return (
        f"{epoch['trial_id']}  epoch {epoch['epoch'] + 1}/{row.num_epochs}  loss {epoch['train_loss']:.3f}  "
        f"val {epoch['val_accuracy']:.3f} (best {best:.3f})  {speed:,.0f} images/s  "
        f"waiting {wait:.0%}  {epoch['seconds']:.1f} s"
    )


def phase_of(status: Mapping[str, Any]) -> str:
    """Return what a job is doing, as a line; empty where it has nothing to say."""
    state, message = status.get("state", ""), status.get("message", "")
    if state in ("", "done", "failed", "stopped"):
        return ""
    return f"{state.capitalize()}: {message}" if message else state.capitalize()
