"""What a run looks like on a terminal: one live table, a row a trial, that fits the window."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from transferlib.cli.following import Snapshot, TrialRow
from transferlib.cli.plain import phase_of
from transferlib.words import clock, count, duration, shortened, sparkline

STYLES = {"running": "bold", "done": "green", "failed": "red", "stopped": "yellow", "pending": "dim"}
SPARK_WIDTH = 8
SEPARATOR = " | "
HEADER = ("trial", "state", "epoch", "val acc", "best", "img/s", "wait", "ETA")
LEFT = ("trial", "state", "val acc")
MIN_NAME_WIDTH = 12
REFRESH_S = 0.5
"""Clocks move at least this often."""
LINES_BESIDE_ROWS = 5
"""The table's head, counts, phase, and a line for the cursor."""


class LiveView:
    """Keep a table of all trials at the bottom of the terminal; talk scrolls above it. A context manager.

    Args:
        console: Where to; None: stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console if console is not None else Console(stderr=True, highlight=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            vertical_overflow="crop",
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._started_at = time.monotonic()
        self._drawn_at = 0.0
        self._told: set[str] = set()
        self._last: Snapshot | None = None

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            if self._last is not None:
                self._draw(self._last)
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line of talk above the table."""
        self._console.print(Text(text))

    def show(self, snapshot: Snapshot) -> None:
        """Draw the table anew, and print what is new above it."""
        for message in snapshot.messages:
            self.say(message)
        for row in snapshot.rows:
            if row.state == "failed" and row.trial.trial_id not in self._told:
                self._told.add(row.trial.trial_id)
                self.say(f"{row.trial.trial_id} failed: {row.reason}")
        self._last = snapshot
        if snapshot.epochs or snapshot.messages or time.monotonic() - self._drawn_at >= REFRESH_S:
            self._draw(snapshot)

    def _draw(self, snapshot: Snapshot) -> None:
        self._drawn_at = time.monotonic()
        self._live.update(draw(snapshot, self._console, self._drawn_at - self._started_at), refresh=True)


def draw(snapshot: Snapshot, console: Console, elapsed_s: float) -> RenderableType:
    """Return the table and the lines under it.

    Args:
        snapshot: Where the run stands.
        console: For its size and encoding.
        elapsed_s: Since the viewer started.
    """
    foot = _foot(snapshot, elapsed_s)
    if all(row.state == "pending" for row in snapshot.rows):
        return foot  # nothing to see in the rows yet
    expected = [row for row in snapshot.rows if row.is_expected]
    rows = choose_rows(expected, max(1, console.height - LINES_BESIDE_ROWS))
    is_ascii = "utf" not in console.encoding.lower()
    return Group(_table(snapshot.rows, rows, console.width, is_ascii=is_ascii), foot)


def choose_rows(rows: Sequence[TrialRow], num_rows: int) -> list[TrialRow]:
    """Return the rows that fit, in the plan's order: running ones first of all, then the latest ended, then the next.

    Args:
        rows: All trials.
        num_rows: Most rows.
    """
    if len(rows) <= num_rows:
        return list(rows)
    running = [row for row in rows if row.state == "running"]
    ended = sorted((row for row in rows if row.state in ("done", "failed", "stopped")), key=lambda row: -row.updated_at)
    pending = [row for row in rows if row.state == "pending"]
    some_pending = pending[: max(1, num_rows // 4)]
    chosen = [*running, *ended[: max(0, num_rows - len(running) - len(some_pending))], *pending][:num_rows]
    ids = {row.trial.trial_id for row in chosen}
    return [row for row in rows if row.trial.trial_id in ids]


def _table(all_rows: Sequence[TrialRow], rows: Sequence[TrialRow], width: int, *, is_ascii: bool) -> Table:
    values = [value for row in all_rows for value in row.val_accuracy]
    low, high = min(values, default=0.0), max(values, default=1.0)
    cells = [_cells(row, low, high, is_ascii=is_ascii) for row in rows]
    widths = [max(len(line[column]) for line in (HEADER, *cells)) for column in range(len(HEADER))]
    widths[3] = SPARK_WIDTH
    name_width = max(MIN_NAME_WIDTH, min(widths[0], width - sum(widths[1:]) - len(widths)))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name, column_width in zip(HEADER, (name_width, *widths[1:]), strict=True):
        justify = "left" if name in LEFT else "right"
        table.add_column(name, no_wrap=True, justify=justify, width=column_width)  # type: ignore[arg-type]
    for row, line in zip(rows, cells, strict=True):
        table.add_row(shortened(line[0], name_width, "~"), *line[1:], style=STYLES.get(row.state, ""))
    return table


def _cells(row: TrialRow, low: float, high: float, *, is_ascii: bool) -> list[str]:
    is_running = row.state == "running"
    return [
        row.trial.trial_id,
        "waiting" if row.state == "pending" else row.state,
        f"{row.epoch}/{row.num_epochs}",
        sparkline(row.val_accuracy, low, high, SPARK_WIDTH, is_ascii=is_ascii),
        "" if row.best is None else f"{row.best:.3f}",
        f"{row.images_per_s:,.0f}" if row.images_per_s else "",
        f"{row.data_wait_share:.0%}" if is_running else "",
        clock(row.eta_s) if row.eta_s is not None and is_running else "",
    ]


def _foot(snapshot: Snapshot, elapsed_s: float) -> Text:
    counts = [
        f"{snapshot.count(state)} {word}"
        for state, word in (
            ("running", "running"),
            ("done", "done"),
            ("failed", "failed"),
            ("stopped", "stopped"),
            ("pending", "waiting"),
        )
        if snapshot.count(state)
    ]
    spared = f", {snapshot.num_spared} spared" if snapshot.num_spared else ""
    parts = [f"{count(snapshot.num_trials, 'trial')}: {', '.join(counts)}{spared}", clock(elapsed_s)]
    if snapshot.eta_s is not None and snapshot.status.get("state") == "running":
        parts.append(f"about {duration(snapshot.eta_s)} left")
    phase = phase_of(snapshot.status)
    return Text.assemble((SEPARATOR.join(parts), "bold"), (f"\n{phase}" if phase else "", "dim"), no_wrap=True)
