"""What `submit compare` and `submit train` do: resolve, plan, make the run folder, start the job, watch it, report."""

from __future__ import annotations

import shutil
from pathlib import Path

from transferlib.cli.attending import say, start_job, target_of
from transferlib.cli.gate import check_limit
from transferlib.cli.outcome import shown
from transferlib.cli.preview import can_show, cheaper_lines, look, plan_job, plan_lines, table_lines, trials_product
from transferlib.cli.request import Request
from transferlib.cli.resolve import Resolved, resolve_spec
from transferlib.data.listing import Listing
from transferlib.errors import UsageError
from transferlib.planning.machine import Machine
from transferlib.planning.option_notes import decide_metric
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder, write_atomic
from transferlib.spec import JobSpec
from transferlib.words import count, duration


def run_request(request: Request) -> int:
    """Do what was asked and return the exit code.

    Raises:
        TransferlibError: What keeps the job from starting.
    """
    if request.resume is not None:
        from transferlib.cli.resuming import resume_run

        return resume_run(request)
    if request.resume_changed:
        raise UsageError("--resume-changed goes with --resume RUN.")
    resolved = _resolve(request)
    for note in resolved.notes:
        say(note)
    target = target_of(request)
    listing = look(resolved.spec)
    spec = decide_metric(resolved.spec, listing)
    check_limit(request.fail_under, spec.comparison.decided_metric)
    machine = target.look(spec)
    plan = plan_job(spec, listing, machine, is_exact=request.is_dry_run)
    if request.is_dry_run:
        print(spec.to_yaml(), end="")
        text = "\n".join(["", *_preview_lines(request, spec, listing, machine, plan)])
        print("\n".join(f"# {line}".rstrip() for line in text.split("\n")))
        return 0
    cheaper = _cheaper(request, spec, listing, machine, plan)
    run = _make_run(spec, request.verb, plan)
    say(_headline(run, plan))
    shown = can_show(plan)
    for line in (*([f"It can show {shown}."] if shown else []), *plan.notes, *cheaper):
        say(line)
    return start_job(request, target, run, plan, is_new=True)


def preview(request: Request) -> int:
    """Print the plan alone and return the exit code.

    Raises:
        TransferlibError: What would keep the job from starting.
    """
    resolved = _resolve(request)
    for note in resolved.notes:
        say(note)
    target = target_of(request)
    listing = look(resolved.spec)
    spec = decide_metric(resolved.spec, listing)
    machine = target.look(spec)
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


def _headline(run: RunFolder, plan: Plan) -> str:
    lines = (
        f"Run {run.run_id}: {count(plan.num_trained_trials, 'trial')} ({trials_product(plan)}), "
        f"{plan.concurrency} side by side, about {duration(plan.cost.seconds)}",
        plan.placement,
        shown(run.path),
    )
    return "\n".join(line for line in lines if line)


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
