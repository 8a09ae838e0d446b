"""`--fail-under`: a run whose model is not good enough ends with exit code 1, so that a CI job stops there."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from typing import Any

import click

from transferlib.runs import RunFolder, reading

Command = Callable[..., Any]

FAIL_UNDER_HELP = (
    "Exit with 1 where the model handed over is below X on test in the metric that chose it, or above X for log_loss; "
    "for CI. Accuracy and its like lie between 0 and 1."
)
EXIT_UNDER = 1
ROUNDING = 1e-9
"""A mean that is exactly the limit may come out a little off it."""


def fail_under_option(text: str = FAIL_UNDER_HELP) -> Callable[[Command], Command]:
    """Return the `--fail-under` option.

    Args:
        text: Its help.
    """
    return click.option("--fail-under", "fail_under", type=FiniteFloat(min=0), metavar="X", help=text)


class FiniteFloat(click.FloatRange):
    """Take a number that can be compared with: nan would let everything pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number that a metric can be held against.", param, ctx)
        return number


def refuse_gate(limit: float | None, *, is_detached: bool, is_dry_run: bool) -> tuple[str, ...]:
    """Return why `--fail-under` cannot hold for a command that does not wait for a result.

    Args:
        limit: X; None: not given.
        is_detached: The job is left to itself.
        is_dry_run: There is no job.
    """
    if limit is None or not (is_detached or is_dry_run):
        return ()
    what = "--detach" if is_detached else "--dry-run"
    return (
        f"--fail-under {limit:g} needs the job's result, and {what} does not wait for one. Ask when it is done: submit "
        f"wait RUN, then submit result RUN --fail-under {limit:g}",
    )


def check_limit(limit: float | None, metric: str) -> None:
    """Refuse a limit that no model can reach.

    Args:
        limit: X; None: not given.
        metric: What it is of.

    Raises:
        UsageError: It is above 1 for a share.
    """
    from transferlib.errors import UsageError
    from transferlib.names import LOWER_IS_BETTER, METRIC_WORDS

    if limit is not None and limit > 1 and metric not in LOWER_IS_BETTER:
        meant = f" Did you mean {limit / 100:g}?" if limit <= 100 else ""
        raise UsageError(f"--fail-under {limit:g}: {METRIC_WORDS[metric]} lies between 0 and 1.{meant}")


def gate(run: RunFolder, limit: float | None, exit_code: int) -> int:
    """Return the exit code of a command about a finished run: 1 where its model is not good enough, and say so.

    Args:
        run: Its folder.
        limit: X; None: every model is good enough.
        exit_code: Without the gate; what did not end with a result keeps it.

    Raises:
        RunFolderError: The result is of an older version.
        UsageError: No model can reach the limit.
    """
    from transferlib.cli.outcome import read_leaderboard
    from transferlib.errors import EXIT_SOME_FAILED
    from transferlib.names import LOWER_IS_BETTER, METRIC_WORDS

    if limit is None or exit_code not in (0, EXIT_SOME_FAILED) or not run.leaderboard("json").exists():
        return exit_code
    leaderboard = read_leaderboard(run)
    metric = leaderboard["metric"]
    check_limit(limit, metric)
    with reading(run.leaderboard("json")):
        value = float(leaderboard["model"]["test"]["value"])
    is_loss = metric in LOWER_IS_BETTER
    if value > limit + ROUNDING if is_loss else value < limit - ROUNDING:
        side = "above" if is_loss else "below"
        name = METRIC_WORDS[metric]
        with contextlib.suppress(OSError):  # the terminal is gone, the exit code is not
            told = f"The model handed over has {name} {value:.4g} on test, {side} the {limit:g} of --fail-under."
            print(told, file=sys.stderr, flush=True)
        return EXIT_UNDER
    return exit_code
