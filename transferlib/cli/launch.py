"""What `submit compare` and `submit train` do: resolve, plan, make the run folder, start the job, watch it, report."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferlib.cli.executor import LocalJob, StopSignals
from transferlib.cli.following import Follower
from transferlib.cli.outcome import partial_lines, result_lines, shown
from transferlib.cli.plain import PlainView
from transferlib.cli.preview import cheaper_lines, look, plan_job, plan_lines, table_lines
from transferlib.cli.resolve import Resolved, find_runs_dir, resolve_spec
from transferlib.cli.watching import Outcome, View, hang_up_is_no_error, watch
from transferlib.cli.words import count, duration
from transferlib.comparison.machine import Machine, detect_machine
from transferlib.comparison.plan import Plan
from transferlib.data.listing import Listing
from transferlib.errors import PlanError, RunFolderError, UsageError
from transferlib.runs import RunFolder, read_json, write_atomic
from transferlib.spec import JobSpec

PLAIN_WIDTH = 120
"""A file in the run folder: go on although versions or weights changed, and say so in the result."""


@dataclass(frozen=True)
class Request:
    """Hold what was typed."""

    verb: str
    given: Mapping[str, Any]
    """Job flags by click's parameter name; what was not typed is left out."""
    spec_file: str | None = None
    is_dry_run: bool = False
    resume: str | None = None
    resume_changed: bool = False
    as_json: bool = False
    problems: tuple[str, ...] = ()
    """What is wrong with the command line already."""


def run_request(request: Request) -> int:
    """Do what was asked and return the exit code.

    Raises:
        TransferlibError: What keeps the job from starting.
    """
    if request.resume is not None:
        return _resume(request)
    if request.resume_changed:
        raise UsageError("--resume-changed goes with --resume RUN.")
    resolved = _resolve(request)
    for note in resolved.notes:
        _say(note)
    spec = resolved.spec
    listing, machine = look(spec)
    plan = plan_job(spec, listing, machine, is_exact=request.is_dry_run)
    if request.is_dry_run:
        print(spec.to_yaml(), end="")
        text = "\n".join(["", *_preview_lines(request, spec, listing, machine, plan)])
        print("\n".join(f"# {line}".rstrip() for line in text.split("\n")))
        return 0
    cheaper = _cheaper(request, spec, listing, machine, plan)
    run = _make_run(spec, request.verb, plan)
    _say(_headline(run, plan))
    for line in (*plan.notes, *cheaper):
        _say(line)
    return _run(request, run, plan, is_new=True)


def preview(request: Request) -> int:
    """Print the plan alone and return the exit code.

    Raises:
        TransferlibError: What would keep the job from starting.
    """
    resolved = _resolve(request)
    for note in resolved.notes:
        _say(note)
    spec = resolved.spec
    listing, machine = look(spec)
    plan = plan_job(spec, listing, machine, is_exact=True)
    print("\n".join(_preview_lines(request, spec, listing, machine, plan)))
    return 0


def _preview_lines(request: Request, spec: JobSpec, listing: Listing, machine: Machine, plan: Plan) -> list[str]:
    lines = [*plan_lines(spec, listing, machine, plan), *table_lines(spec, plan)]
    cheaper = _cheaper(request, spec, listing, machine, plan)
    return [*lines, "", *cheaper] if cheaper else lines


def _cheaper(request: Request, spec: JobSpec, listing: Listing, machine: Machine, plan: Plan) -> list[str]:
    typed = {**request.given, **({"spec": request.spec_file} if request.spec_file else {})}
    return list(cheaper_lines(request.verb, typed, spec, listing, machine, plan))


def _resolve(request: Request) -> Resolved:
    return resolve_spec(
        request.verb, request.given, spec_file=request.spec_file, folder=Path.cwd(), problems=request.problems
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _headline(run: RunFolder, plan: Plan) -> str:
    arms, trials = count(len(plan.arms), "arm"), count(len(plan.trials), "trial")
    return (
        f"Run {run.run_id}: {trials} ({arms} x {count(len(plan.seeds), 'seed')} x "
        f"{count(plan.num_candidates, 'learning rate')}), {plan.concurrency} side by side, "
        f"about {duration(plan.cost.seconds)}\n{shown(run.path)}"
    )


def _make_run(spec: JobSpec, verb: str, plan: Plan) -> RunFolder:
    run = None
    try:
        run = RunFolder.create(Path(spec.output.runs_dir), verb)
        write_atomic(run.plan, plan.to_json())
        write_atomic(run.spec, spec.to_yaml())
        run.set_status("preparing", message="starting")
    except OSError as error:
        if run is not None:
            shutil.rmtree(run.path, ignore_errors=True)  # made a moment ago, and nothing has begun
        raise UsageError(
            f"--runs {spec.output.runs_dir}: a run folder cannot be made there ({error.strerror}). Give another folder."
        ) from None
    return run


def _resume(request: Request) -> int:
    """Go on with a run by its own spec and plan."""
    extra = [f"--{name.replace('_', '-')}" for name in request.given if name != "runs"]
    extra += ["--spec"] if request.spec_file else []
    extra += ["--dry-run"] if request.is_dry_run else []
    problems = list(request.problems)
    if extra:
        problems.append(
            f"--resume goes on with the run's own spec, so it takes no {', '.join(extra)}. "
            "Leave them out, or start a new run."
        )
    if problems:
        from transferlib.errors import SpecError

        raise SpecError(problems)
    assert request.resume is not None
    run = RunFolder.find(find_runs_dir(request.given.get("runs"), Path.cwd()), request.resume)
    plan = _saved_plan(run)
    spec = JobSpec.load(run.spec)
    if spec.verb != request.verb:
        raise UsageError(f"{run.run_id} is a run of submit {spec.verb}. Use: submit {spec.verb} --resume {run.run_id}")
    try:
        with run.locked():
            status = read_json(run.status) or {}
            if status.get("state") != "done":
                _make_ready(run, plan, has_changed=request.resume_changed)
    except OSError as error:
        raise RunFolderError(f"{run.path} cannot be written ({error.strerror}), so it cannot go on.") from None
    if status.get("state") == "done":
        _say(f"Run {run.run_id} is done already.")
        _print_result(request, run, plan, status.get("exit_code", 0))
        return int(status.get("exit_code", 0))
    _say(f"Going on with run {run.run_id}\n{shown(run.path)}")
    return _run(request, run, plan, is_new=False)


def _make_ready(run: RunFolder, plan: Plan, *, has_changed: bool) -> None:
    """Put a run that is to go on into the state that its job finds it in."""
    _check_machine(run, plan)
    run.stop_flag.unlink(missing_ok=True)
    if has_changed:
        run.resume_changed_flag.touch()
    run.set_status("preparing", message="going on")


def _check_machine(run: RunFolder, plan: Plan) -> None:
    """Refuse to go on where the plan's GPUs are not; fewer CPUs only take longer, since the threads stay the same."""
    machine = detect_machine(run.path, run.path)
    if plan.use_gpu and machine.gpus < plan.gpus:
        raise PlanError(
            f"{run.run_id} was planned for {count(plan.gpus, 'GPU')}: this machine has {machine.gpus}. "
            "Go on with it where it began, or start a new run."
        )


def _saved_plan(run: RunFolder) -> Plan:
    try:
        return Plan.from_json(run.plan.read_text())
    except FileNotFoundError:
        raise RunFolderError(f"{run.path} has no plan.json: it was never started. Start a new run.") from None


def _run(request: Request, run: RunFolder, plan: Plan, *, is_new: bool) -> int:
    with StopSignals() as signals:
        job = LocalJob(run)
        outcome = watch(run, job, Follower(run, plan, is_new=is_new), _view(request), signals)
        with hang_up_is_no_error():
            _record_end(run, outcome)
            _report(request, run, plan, outcome)
    return outcome.exit_code


def _view(request: Request) -> View:
    import os

    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not request.as_json:
        from transferlib.cli.live import LiveView

        return LiveView()
    return PlainView()


def _record_end(run: RunFolder, outcome: Outcome) -> None:
    """Write the status that a job could not write itself."""
    if outcome.state not in ("died", "aborted"):
        return
    with run.locked():
        state = "failed" if outcome.state == "died" else "stopped"
        run.set_status(state, exit_code=outcome.exit_code, error=outcome.text.splitlines()[0])


def _report(request: Request, run: RunFolder, plan: Plan, outcome: Outcome) -> None:
    if outcome.state == "done":
        if outcome.text:
            _say(outcome.text)
        _print_result(request, run, plan, outcome.exit_code)
        return
    if outcome.text:
        _say(outcome.text)
    if request.as_json:
        _print_json(run, outcome.state, outcome.exit_code)
    if outcome.can_go_on:
        for line in partial_lines(run, plan, request.verb):
            print(line, file=sys.stderr if request.as_json else sys.stdout)


def _print_result(request: Request, run: RunFolder, plan: Plan, exit_code: int) -> None:
    if request.as_json:
        _print_json(run, "done", exit_code)
        return
    width = shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns if sys.stdout.isatty() else PLAIN_WIDTH
    print()
    for line in result_lines(run, plan, width):
        print(line)


def _print_json(run: RunFolder, state: str, exit_code: int) -> None:
    answer = {"id": run.run_id, "state": state, "exit_code": exit_code, "path": str(run.path)}
    print(json.dumps({**answer, "leaderboard": read_json(run.leaderboard("json"))}, indent=2))
