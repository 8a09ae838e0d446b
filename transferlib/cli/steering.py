"""Look at, follow and wait for a run, wherever its job is: answered from its folder, with Ray's word beside it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transferlib.cli.following import Follower, LineReader, Snapshot, TrialRow
from transferlib.cli.outcome import (
    best_finished,
    lost_model,
    model_place,
    model_text,
    partial_lines,
    result_json,
    result_lines,
    shown,
)
from transferlib.cli.resolve import find_runs_dir
from transferlib.cli.run_state import LOST, UNREADABLE, RunState
from transferlib.cli.run_view import RunView
from transferlib.errors import DamagedFileError, RunFolderError, TransferlibError, unknown_name
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder
from transferlib.submissions import Submission
from transferlib.words import ago, count, duration, first_of, listed

EXIT_TIMEOUT = 124
"""As `timeout` of coreutils has it."""
POLL_S = 1.0
LABEL_WIDTH = 10


def find_run(name: str, runs: str | None) -> RunFolder:
    """Return the run that a word names, in the folder of runs that is meant.

    Args:
        name: An id, the start of one, @last, or a run folder's path.
        runs: Of `--runs`.

    Raises:
        RunFolderError: None or several match.
    """
    return RunFolder.find(find_runs_dir(runs, Path.cwd()), name)


def state_json(run: RunFolder, state: RunState) -> dict[str, Any]:
    """Return how a run stands as the object that each `--json` prints.

    Args:
        run: Its folder, up to date.
        state: How it stands.
    """
    submission = Submission.load(run)
    job = None
    if submission is not None:
        job = {
            "address": submission.address,
            "submission_id": submission.submission_id,
            "attempt": submission.attempt,
            "storage": submission.storage,
            "status": state.ray,
        }
    trials, training = {}, []
    snapshot, problems = _snapshot(run)
    if snapshot is not None:
        names = ("pending", "running", "done", "failed", "stopped")
        trials = {name: number for name in names if (number := snapshot.count(name))}
        trials |= {"spared": snapshot.num_spared} if snapshot.num_spared else {}
        training = [] if state.is_over else [_place(row) for row in _running(snapshot)]
    try:
        model = model_place(run, is_over=state.is_over)
        problems = (*problems, *filter(None, [lost_model(run)]))
    except DamagedFileError as error:
        model, problems = None, (*problems, str(error))
    return {
        "id": run.run_id,
        "state": state.state,
        "exit_code": state.exit_code,
        "message": state.message,
        "updated_at": state.updated_at,
        "trials": trials,
        "training": training,
        "damaged": list(dict.fromkeys(problems)),
        "ray": job,
        "path": str(run.path),
        "model": model,
    }


def status_lines(run: RunFolder, state: RunState) -> Iterator[str]:
    """Yield how a run stands, a line a matter.

    Args:
        run: Its folder, up to date.
        state: How it stands.
    """
    code = "" if state.exit_code is None else f", exit code {state.exit_code}"
    when = f", {ago(time.time() - state.updated_at)}" if state.updated_at else ""
    yield f"{run.run_id}: {state.state}{code}{when}"
    if state.message:
        yield from _row("doing" if not state.is_over else "because", state.message)
    if state.note:
        yield from _row("but", state.note)
    snapshot, problems = _snapshot(run)
    for problem in problems:
        yield from _row("damaged", problem)
    if snapshot is not None:
        yield from _row("trials", _trials_text(snapshot))
        if not state.is_over and (lines := [f"{row.trial.trial_id}, {row.place}" for row in _running(snapshot)]):
            yield from _row("training", "\n".join(first_of(lines, "trials")))
        best = max(snapshot.rows, key=lambda row: row.best or 0.0)
        if (model := model_text(run)) is not None:
            yield from _row("model", model)
        elif best.best is not None:
            yield from _row("best", f"{best.trial.trial_id}, accuracy {best.best:.3f} on validation so far")
    submission = Submission.load(run)
    if submission is not None:
        yield from _row("job", f"{submission.submission_id} at {submission.address}, {ray_words(state.ray)}")
        if submission.storage is not None:
            yield from _row("storage", f"{submission.storage.rstrip('/')}/{run.run_id}")
    yield from _row("folder", shown(run.path))
    if state.state in ("stopped", "failed", "lost", UNREADABLE):
        yield from _row("go on", f"submit {run.verb} --resume {run.run_id}")


def ray_words(status: str | None) -> str:
    """Return Ray's status of a job in words."""
    match status:
        case None:
            return "not asked"
        case "unreachable":
            return "which does not answer"
        case "unknown":
            return "which knows nothing of it (restarted, or another cluster)"
        case _:
            return f"{status.lower()} there"


def follow_log(run: RunFolder, trial_id: str | None, *, follows: bool, as_json: bool) -> int:
    """Print a run's log to stdout, and what is added to it until the run ends.

    Args:
        run: Its folder.
        trial_id: A trial's own log; None: the job's.
        follows: Whether to go on until the job has ended.
        as_json: Each line as an object.

    Returns:
        The job's exit code where it was followed to its end, else 0.
    """
    path = run.job_log if trial_id is None else _trial_log(run, trial_id)
    name = path.relative_to(run.path).as_posix()
    reader, view, notes = LineReader(path), RunView(run), Notes()
    while True:
        state = view.glance(asks=follows, also=[name])
        notes.say(state.note)
        for line in reader.read():
            print(json.dumps({"log": path.stem, "line": line}) if as_json else line)
        sys.stdout.flush()
        if not follows or view.is_over(state):
            break
        time.sleep(POLL_S)
    if not path.exists():
        print(_no_log(view, path.stem, is_jobs=trial_id is None), file=sys.stderr)
    return 0 if not follows or state.exit_code is None else state.exit_code


def wait_for(run: RunFolder, timeout_s: float | None) -> RunState | None:
    """Wait until a run's job has ended.

    Args:
        run: Its folder.
        timeout_s: Longest wait; None: without end.

    Returns:
        How it ended; None: it had not when the time was up.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    view, notes = RunView(run), Notes()
    while True:
        state = view.look()
        notes.say(state.note)
        if view.is_over(state):
            return state
        left = POLL_S if deadline is None else min(POLL_S, deadline - time.monotonic())
        if left <= 0:
            return None
        time.sleep(left)


class Notes:
    """Tell what stands in the way once, not at every look."""

    def __init__(self) -> None:
        self._is_told = False

    def say(self, note: str) -> None:
        """Print a note to stderr where the look before had none."""
        if note and not self._is_told:
            print(note, file=sys.stderr, flush=True)
        self._is_told = bool(note)


def print_result(run: RunFolder, state: RunState, *, as_json: bool, width: int) -> None:
    """Print a run's result, or how it stands where it has none.

    Args:
        run: Its folder, up to date.
        state: How it ended.
        as_json: As one object, with the leaderboard.
        width: Of the terminal, characters.
    """
    board = run.leaderboard("json")
    if as_json:
        print(json.dumps({**state_json(run, state), **result_json(run, is_over=state.is_over)}, indent=2))
        return
    if not board.exists() and state.is_over and best_finished(run) is not None:
        print(f"Run {run.run_id} is {state.state}: it has no verdict yet.", file=sys.stderr)
        print("\n".join(partial_lines(run, Plan.load(run.plan), run.verb)))
        return
    if not board.exists():
        print(f"Run {run.run_id} has no result.", file=sys.stderr)
        print("\n".join(status_lines(run, state)), file=sys.stderr)
        return
    if state.state in (LOST, UNREADABLE):
        print(f"Run {run.run_id} is {state.state}: {state.message}", file=sys.stderr)
    for line in result_lines(run, width):
        print(line)


def report_inputs(run: RunFolder) -> list[str]:
    """Return the files beside the small ones that a report is made of, by their names in the run's folder."""
    trials = Plan.load(run.plan).trials if run.plan.exists() else ()
    files = [run.manifest, run.predictions]
    files += [run.trial(trial.trial_id).predictions(split) for trial in trials for split in ("val", "test")]
    return [path.relative_to(run.path).as_posix() for path in files]


def _row(label: str, text: str) -> Iterator[str]:
    for index, line in enumerate(text.splitlines()):
        yield f"  {label if index == 0 else '':<{LABEL_WIDTH}}{line}"


def _trials_text(snapshot: Snapshot) -> str:
    words = {"done": "done", "failed": "failed", "running": "running", "stopped": "stopped", "pending": "waiting"}
    counts = listed([f"{snapshot.count(state)} {word}" for state, word in words.items() if snapshot.count(state)])
    is_known = snapshot.eta_s is not None and snapshot.status.get("state") == "running"
    left = f"; about {duration(snapshot.eta_s or 0.0)} left" if is_known else ""
    spared = f", {snapshot.num_spared} spared" if snapshot.num_spared else ""
    return f"{counts} of {count(snapshot.num_trials, 'trial')}{spared}{left}"


def _running(snapshot: Snapshot) -> list[TrialRow]:
    return [row for row in snapshot.rows if row.state == "running"]


def _place(row: TrialRow) -> dict[str, Any]:
    """Return where a trial is, for `--json`: epochs finished, and steps of the one that is being trained."""
    steps = {"step": row.step, "num_steps": row.num_steps}
    return {"trial_id": row.trial.trial_id, "epoch": row.epoch, "num_epochs": row.num_epochs, **steps}


def _snapshot(run: RunFolder) -> tuple[Snapshot | None, tuple[str, ...]]:
    """Return how the trials stand, None where there is no plan, and which files are damaged."""
    try:
        snapshot = Follower(run, Plan.load(run.plan)).take()
        return snapshot, snapshot.problems
    except FileNotFoundError:
        return None, ()
    except TransferlibError as error:
        return None, (str(error),)


def _trial_log(run: RunFolder, trial_id: str) -> Path:
    """Return the path of a trial's log; only of trials that the plan has, so that no name leads out of the folder."""
    known = [trial.trial_id for trial in Plan.of_run(run).trials]
    found = [name for name in known if name == trial_id or name.startswith(trial_id)]
    if len(found) != 1 and trial_id not in known:
        raise RunFolderError(unknown_name("trial", trial_id, known))
    return run.log / f"{found[0] if trial_id not in known else trial_id}.log"


def _no_log(view: RunView, name: str, *, is_jobs: bool) -> str:
    """Return what to say where there is no log: Ray's own has what went wrong before the job began."""
    nothing = f"Nothing was logged yet by {f'run {view.run.run_id}' if is_jobs else f'trial {name}'}."
    if not is_jobs:
        return nothing
    try:
        return view.ray_log() or nothing
    except TransferlibError as error:
        return f"{nothing[:-1]}, and its cluster says: {error}"
