"""Start a job, watch it to its end or leave it to itself, and say how it ended."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from transferlib.cli.executor import StopSignals
from transferlib.cli.following import Follower
from transferlib.cli.gate import gate
from transferlib.cli.outcome import partial_lines, result_json, result_lines
from transferlib.cli.plain import PlainView
from transferlib.cli.request import Request
from transferlib.cli.targets import Target, find_target
from transferlib.cli.watching import Job, Outcome, View, hang_up_is_no_error, watch
from transferlib.errors import UsageError
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder, disk_full_text, is_disk_full

PLAIN_WIDTH = 120
"""Of what is printed where there is no terminal, characters."""


def target_of(request: Request) -> Target:
    """Return where a request's job is to run, and say so where that was not typed.

    Raises:
        UsageError: It names a place that cannot be.
        ClusterUnreachableError: The cluster does not answer.
    """
    target = find_target(request.address, request.storage, os.environ)
    if target.greeting:
        say(target.greeting)
    return target


def say(text: str) -> None:
    """Print talk: it goes to stderr, so that stdout holds the result alone."""
    print(text, file=sys.stderr, flush=True)


def start_job(request: Request, target: Target, run: RunFolder, plan: Plan, *, is_new: bool) -> int:
    """Start a run's job, then follow it or leave it to itself.

    Raises:
        UsageError: The run's id cannot be written where it was asked for.
    """
    leave_id(request, run)
    with StopSignals() as signals:
        job = target.start(run, plan, is_detached=request.is_detached)
        if not request.is_detached:
            return follow_job(request, run, plan, job, signals, is_new=is_new)
    if request.as_json:
        print_json(run, "preparing", None)
    else:
        print(run.run_id)
    say("\n".join(job.leaving_lines()))
    return 0


def leave_id(request: Request, run: RunFolder) -> None:
    """Write a run's id where `--id-file` says, for scripts that stop the run or look at it.

    Raises:
        UsageError: It cannot be written there.
    """
    if request.id_file is not None:
        try:
            Path(request.id_file).write_text(f"{run.run_id}\n")
        except OSError as error:
            raise UsageError(
                f"--id-file {request.id_file} cannot be written ({error.strerror}). Run {run.run_id} is made and was "
                f"not started: submit {request.verb} --resume {run.run_id}"
            ) from None


def follow_job(
    request: Request, run: RunFolder, plan: Plan, job: Job, signals: StopSignals | None = None, *, is_new: bool
) -> int:
    """Show a job until it has ended, then its result.

    Args:
        request: What was typed.
        run: The job's folder.
        plan: The run's plan.
        job: Running.
        signals: In force already; None: from now on.
        is_new: False for a run that said something before.
    """
    with StopSignals() if signals is None else nullcontext(signals) as caught:
        outcome = watch(job, Follower(run, plan, is_new=is_new), _view(request), caught)
        outcome = _record_end(run, outcome)
        with hang_up_is_no_error():
            _report(request, run, plan, outcome)
    return gate(run, request.fail_under, outcome.exit_code)


def _view(request: Request) -> View:
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not request.as_json:
        from transferlib.cli.live import LiveView

        return LiveView()
    return PlainView()


def _record_end(run: RunFolder, outcome: Outcome) -> Outcome:
    """Write the status that a job could not write itself; return the outcome, with what stood in the way of that."""
    if outcome.state not in ("died", "aborted"):
        return outcome
    state = "failed" if outcome.state == "died" else "stopped"
    try:
        with run.locked():
            run.set_status(state, exit_code=outcome.exit_code, error=outcome.text.splitlines()[0])
    except OSError as error:
        why = disk_full_text(run.path) if is_disk_full(error) else f"{run.path} cannot be written: {error.strerror}."
        return replace(outcome, text=f"{outcome.text}\n{why}")
    return outcome


def _report(request: Request, run: RunFolder, plan: Plan, outcome: Outcome) -> None:
    if outcome.state == "done":
        if outcome.text:
            say(outcome.text)
        print_result(request, run, outcome.exit_code)
        return
    if outcome.text:
        say(outcome.text)
    if request.as_json:
        is_over = outcome.state != "left"
        print_json(run, outcome.state if is_over else "running", outcome.exit_code if is_over else None)
    if outcome.can_go_on:
        for line in partial_lines(run, plan, request.verb):
            print(line, file=sys.stderr if request.as_json else sys.stdout)


def print_result(request: Request, run: RunFolder, exit_code: int) -> None:
    """Print the result of a run that is done, as text or JSON."""
    if request.as_json:
        print_json(run, "done", exit_code)
        return
    width = shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns if sys.stdout.isatty() else PLAIN_WIDTH
    print()
    for line in result_lines(run, width):
        print(line)


def print_json(run: RunFolder, state: str, exit_code: int | None) -> None:
    """Print how a run stands and its leaderboard, as one JSON object."""
    answer = {"id": run.run_id, "state": state, "exit_code": exit_code, "path": str(run.path)}
    print(json.dumps({**answer, **result_json(run, is_over=exit_code is not None)}, indent=2))
