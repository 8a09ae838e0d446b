"""`--resume RUN`: go on with a run by its own spec and plan, where it was or on another cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from transferlib.addresses import HERE
from transferlib.cli.attending import follow_job, leave_id, print_result, say, start_job, target_of
from transferlib.cli.gate import gate
from transferlib.cli.missing import missing_files, refuse_folders
from transferlib.cli.outcome import shown
from transferlib.cli.request import Request
from transferlib.cli.resolve import find_runs_dir
from transferlib.cli.run_state import RunState, read_state
from transferlib.cli.run_view import RunView
from transferlib.errors import PlanError, RunFolderError, StorageError, UsageError
from transferlib.planning.machine import Machine
from transferlib.planning.placement import count_slots
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder
from transferlib.spec import JobSpec
from transferlib.submissions import Submission
from transferlib.words import count, first_of


def resume_run(request: Request) -> int:
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
    submission = Submission.newest(run)
    before = _look(run)
    plan = _saved_plan(run)
    spec = JobSpec.load(run.spec)
    if spec.verb != request.verb:
        raise UsageError(f"{run.run_id} is a run of submit {spec.verb}. Use: submit {spec.verb} --resume {run.run_id}")
    refuse_folders(run, plan)
    status = run.read_status() or {}
    missing = missing_files(run, plan, spec) if status.get("state") == "done" else []
    if status.get("state") == "done" and not missing:
        say(f"Run {run.run_id} is done already.")
        print_result(request, run, status.get("exit_code", 0))
        return gate(run, request.fail_under, int(status.get("exit_code", 0)))
    if missing:
        names = "\n".join(f"  {name}" for name in first_of(missing, "files"))
        say(
            f"Run {run.run_id} is done, but this is missing, damaged or of an older version, and is made again:"
            f"\n{names}"
        )
    request = _as_before(request, run, submission)
    # A job that has said how it ended changes nothing more, though Ray may show its process for a while yet.
    has_ended = before.is_over and before.is_certain
    if request.address == HERE and before.ray in ("PENDING", "RUNNING") and not has_ended and submission is not None:
        raise RunFolderError(f"Run {run.run_id} is at work at {submission.address}. First: submit stop {run.run_id}")
    target = target_of(request)
    job = None if has_ended else target.find_running(run)
    if job is not None:
        say(f"Run {run.run_id} is still running there.")
        leave_id(request, run)
        return follow_job(request, run, plan, job, is_new=False)
    _check_machine(run, plan, target.look(spec))
    _make_ready(run, has_changed=request.resume_changed)
    say(f"Going on with run {run.run_id}\n{shown(run.path)}")
    return start_job(request, target, run, plan, is_new=False)


def _look(run: RunFolder) -> RunState:
    """Return how a run stands, its folder brought up to date.

    Raises:
        StorageError: Its storage does not answer: what is finished there is not known.
    """
    try:
        state = RunView(run).look()
    except RunFolderError:
        state = read_state(run)
        if state.state != "preparing":
            raise  # else its start was cut off before it came into the storage: it is brought there now
    if state.note:
        raise StorageError(state.note)
    return state


def _as_before(request: Request, run: RunFolder, submission: Submission | None) -> Request:
    """Return a request that goes, where it does not say where to, to where the run was.

    Raises:
        UsageError: It says here, and the run is elsewhere.
    """
    if submission is None:
        return request
    address = request.address or submission.address or HERE
    if address == HERE and submission.storage is not None:
        raise UsageError(
            f"Run {run.run_id} lies in {submission.storage}, with its checkpoints: it goes on on a cluster. "
            "Give --address http://HEAD:8265."
        )
    return replace(request, address=address, storage=request.storage or submission.storage)


def _make_ready(run: RunFolder, *, has_changed: bool) -> None:
    """Put a run that is to go on into the state that its job finds it in."""
    try:
        with run.locked():
            run.stop_flag.unlink(missing_ok=True)
            if has_changed:
                run.resume_changed_flag.touch()
            else:
                run.resume_changed_flag.unlink(missing_ok=True)  # leave is given for one attempt
            run.set_status("preparing", message="going on")
    except OSError as error:
        raise RunFolderError(f"{run.path} cannot be written ({error.strerror}), so it cannot go on.") from None


def _check_machine(run: RunFolder, plan: Plan, machine: Machine) -> None:
    """Refuse to go on where the plan's workers have no room; on one machine, fewer CPUs only take longer."""
    if plan.use_gpu and machine.gpus < plan.gpus:
        raise PlanError(
            f"{run.run_id} was planned for {count(plan.gpus, 'GPU')}: {machine.name} has {machine.gpus}. "
            "Go on with it where it began, or start a new run."
        )
    needed = plan.workers_per_trial * plan.concurrency
    slots = count_slots(machine.nodes, plan.cpus_per_worker, use_gpu=plan.use_gpu)
    if machine.nodes and (slots < needed or machine.cpus < plan.ray_cpus):
        raise PlanError(
            f"{run.run_id} was planned for {count(needed, 'worker')} of {plan.cpus_per_worker:g} CPU side by side and "
            f"{plan.ray_cpus} CPUs in all: {machine.name} has room for {slots}, and {machine.cpus} CPUs. "
            "Go on with it where it began, or start a new run."
        )


def _saved_plan(run: RunFolder) -> Plan:
    if not run.plan.exists() and not any(run.path.glob("trials/*")):
        raise RunFolderError(f"{run.path} has no plan.json: it was never started. Start a new run.")
    return Plan.of_run(run)
