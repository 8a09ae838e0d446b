"""Ray Tune schedules the trials. A one-worker trial runs in its own trial process, which later trials use again.

torch is loaded where trials run, not where they are scheduled: the job's own process starts seconds earlier without it.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from transferlib.on_ray.ending import ended_by_its_own_error
from transferlib.on_ray.mirroring import KeptRun, ended_when_superseded, trial_mirror
from transferlib.on_ray.pruning import DropLosers
from transferlib.on_ray.settled import load_plan, load_spec
from transferlib.on_ray.tasks import own_error, worker_task
from transferlib.on_ray.trial_queue import TrialQueue, YieldedError
from transferlib.on_ray.turns import Turns
from transferlib.on_ray.waiting import POLL_S
from transferlib.planning.plan import Plan
from transferlib.records import FINISHED, EpochRecord, TrialSpec
from transferlib.runs import RunFolder

logger = logging.getLogger(__name__)

MAX_RESTARTS = 3
STEP_GRACE_S = 90.0
"""How long trials may take to their next step when the run is stopped; well within what Ray gives a stopped job."""
EVALUATION_GRACE_S = 4.0
"""How long an evaluation may go on when the run is stopped; one that is cut off leaves nothing and is made again."""


class OneWorkerTrial(tune.Trainable):
    """Train one-worker trials, one after another, in one process; one Tune iteration is one epoch."""

    _open: ExitStack | None = None
    _records: Iterator[EpochRecord]
    _trial: tuple[RunFolder, TrialSpec]

    def setup(self, config: dict[str, Any]) -> None:
        """Open a trial; after a kill, the same one again, which goes on from its last checkpoint."""
        from transferlib.on_ray.board import shown_as
        from transferlib.on_ray.opening import logged_to, open_trial, trial_device
        from transferlib.training.trial import train_trial
        from transferlib.training.worker import LocalWorker

        self._close()
        self._records = iter(())
        self._trial = run, trial = RunFolder(Path(config["run"])), TrialSpec.from_json(config["trial"])
        if run.stop_flag.exists():
            return
        self._open = ExitStack()
        stop_flag = self._open.enter_context(trial_mirror(run, trial.trial_id))
        self._open.enter_context(logged_to(run.log / f"{trial.trial_id}.log"))
        self._open.enter_context(shown_as(trial.trial_id))
        logger.info("%s in process %d", trial.trial_id, os.getpid())
        worker = LocalWorker(trial_device(load_plan(run.path)), stop_flag=stop_flag)
        with ended_by_its_own_error(run, trial):
            records = train_trial(open_trial(run, trial, stop_flag), worker)
            self._open.callback(records.close)
            self._records = records

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial into this process."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch; nothing is left to do where the run was stopped before it began."""
        record = None
        with ended_by_its_own_error(*self._trial):
            record = next(self._records, None)
        if record is None:
            self._close()
            return {"done": True}
        return {**asdict(record), "done": False}

    def cleanup(self) -> None:
        """Close what the last trial left open."""
        self._close()

    def _close(self) -> None:
        if self._open is not None:
            closing, self._open = self._open, None
            with ended_when_superseded():
                closing.close()


class _NothingTrainsError(Exception):
    """End Tune's loop."""


class EndWhenStopped(tune.Callback):
    """End Tune's loop once the run is stopped and no trial trains: those that wait for resources wait no longer.

    Trials that train end by the flag themselves, at a step; one that has come to none after 90 s (its node is
    lost, say) is cut off, and goes on from its last checkpoint. Tune's own ways to stop would cut all off after 10 s.

    Args:
        stop_flag: Of the run.
        look: Called ten times a second too.
    """

    def __init__(self, stop_flag: Path, look: Callable[[], None]) -> None:
        self._stop_flag = stop_flag
        self._look = look
        self._stopped_at: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave nothing of it in the record that Tune writes and nobody reads: connections cannot go there."""
        return (tune.Callback, ())

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look; Tune calls this ten times a second.

        Raises:
            _NothingTrainsError: There is nothing to wait for.
        """
        self._look()
        if not self._stop_flag.exists():
            return
        self._stopped_at = self._stopped_at or time.monotonic()
        is_late = time.monotonic() - self._stopped_at > STEP_GRACE_S
        if is_late or not any(trial.status == "RUNNING" for trial in trials):
            raise _NothingTrainsError


class WorkerGroupTrial(tune.Trainable):
    """Be a Tune trial that waits for a Ray Train worker group; one Tune iteration is the whole trial."""

    def setup(self, config: dict[str, Any]) -> None:
        """Keep what to train."""
        self._config = config

    def step(self) -> dict[str, Any]:
        """Train the trial to its end."""
        from transferlib.on_ray.board import shown_as
        from transferlib.on_ray.train import train_in_worker_group

        run, trial = RunFolder(Path(self._config["run"])), TrialSpec.from_json(self._config["trial"])
        if not run.stop_flag.exists():
            with shown_as(trial.trial_id):
                train_in_worker_group(run, trial)
        return {"done": True}


def run_trials(
    run: RunFolder, plan: Plan, trials: Sequence[TrialSpec], kept: KeptRun, turns: Turns, look: Callable[[], None]
) -> dict[str, str]:
    """Run trials to their end, as many side by side as the plan says; those that need no training get their result.

    Args:
        run: Their run folder, with spec, plan, manifest and `prepared.json` in it.
        plan: Of the run.
        trials: Which to run, in this order.
        kept: The run as it is kept.
        turns: Of the jobs on the cluster.
        look: Called at least twice a second meanwhile.

    Returns:
        Trials that Ray gave up on and those that wait for them, with the reason; how the others ended stands in their
        folders. Where the run was stopped some may not have begun.
    """
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)  # it looks for files we keep off
    given_up: dict[str, str] = {}
    while True:
        queue = TrialQueue(run, plan.tuning, trials, kept, turns.must_yield)
        queue.spare()
        trials = [trial for trial in trials if not _is_finished(run, trial)]
        _await_turn(run, turns, look)
        if not trials or run.stop_flag.exists():
            return given_up
        # Tune's own record is scratch: the run folder is the record, and trials go on from our checkpoints.
        scratch = tempfile.mkdtemp(prefix="tune-")
        try:
            grid = _tuner(run, plan, queue, len(trials), kept, scratch, look).fit()
        except _NothingTrainsError:
            grid = None
        except YieldedError:
            kept.pull()
            given_up |= dict.fromkeys(queue.given_up(), "Ray gave it up before an earlier job had its turn")
            trials = [trial for trial in trials if trial.trial_id not in given_up]
            continue
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        kept.pull()
        if grid is None:
            return given_up
        queue.spare()
        lost = {
            _config_trial(result.config).trial_id: _last_line(result.error)
            for result in map(grid.__getitem__, range(len(grid)))
            if result.error is not None
        }
        return {**given_up, **lost, **queue.waiting()}


def _is_finished(run: RunFolder, trial: TrialSpec) -> bool:
    result = run.trial(trial.trial_id).read_result()
    return result is not None and result.state in FINISHED


def _await_turn(run: RunFolder, turns: Turns, look: Callable[[], None]) -> None:
    """Wait while an earlier job waits for room, or until the run is stopped."""
    while turns.must_yield() and not run.stop_flag.exists():
        look()
        time.sleep(POLL_S)


def _tuner(
    run: RunFolder,
    plan: Plan,
    queue: TrialQueue,
    num_trials: int,
    kept: KeptRun,
    scratch: str,
    look: Callable[[], None],
) -> tune.Tuner:
    return tune.Tuner(
        tune.with_resources(*_trainable(plan)),
        tune_config=tune.TuneConfig(
            search_alg=queue,
            num_samples=num_trials,
            max_concurrent_trials=plan.concurrency,
            reuse_actors=plan.workers_per_trial == 1,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=run.run_id,
            storage_path=scratch,
            verbose=0,
            # A worker group is started again by Ray Train.
            failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS if plan.workers_per_trial == 1 else 0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            callbacks=_callbacks(run, plan, kept, look),
        ),
    )


def _callbacks(run: RunFolder, plan: Plan, kept: KeptRun, look: Callable[[], None]) -> list[tune.Callback]:
    keeps_chosen = load_spec(run.path).output.keep == "chosen"
    ends = EndWhenStopped(run.stop_flag, look)
    return [ends, *([DropLosers(run, plan.trials, kept.remove)] if keeps_chosen else [])]


def _trainable(plan: Plan) -> tuple[type[tune.Trainable], dict[str, float]]:
    if plan.workers_per_trial == 1:
        return OneWorkerTrial, {"cpu": plan.cpus_per_worker, "gpu": 1 if plan.use_gpu else 0}
    # The trial process only waits for its worker group: it must not hold a CPU that a worker needs.
    return WorkerGroupTrial, {"node:__internal_head__": 0.001}


def _config_trial(config: dict[str, Any] | None) -> TrialSpec:
    assert config is not None
    return TrialSpec.from_json(config["trial"])


def _trial_name(trial: Any) -> str:
    return _config_trial(trial.config).trial_id


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def evaluate_trials(
    run: RunFolder, plan: Plan, trials: Sequence[TrialSpec], turns: Turns, look: Callable[[], None]
) -> None:
    """Read the test set with each chosen trial's best weights, once; those already done are left as they are.

    After the run's stop flag is set no further trial is begun, and those that go on for longer than a moment are ended:
    they may be waiting for another job's CPUs.

    Args:
        run: The trials' run folder.
        plan: Of the run.
        trials: The chosen ones.
        turns: Of the jobs on the cluster.
        look: Called twice a second meanwhile.
    """
    pending = [trial for trial in trials if not run.trial(trial.trial_id).predictions("test").exists()]
    task = worker_task(_evaluate, plan, MAX_RESTARTS)
    running: dict[ray.ObjectRef[None], PlacementGroup] = {}
    try:
        while (pending or running) and not run.stop_flag.exists():
            while pending and len(running) < plan.concurrency and not turns.must_yield():
                # A reservation, as a trial has one: other jobs see that this one waits.
                place = placement_group([{"CPU": plan.cpus_per_worker, **({"GPU": 1} if plan.use_gpu else {})}])
                here = PlacementGroupSchedulingStrategy(place)
                trial = pending.pop(0)
                running[task.options(scheduling_strategy=here).remote(str(run.path), trial.to_json())] = place
            # While an earlier job waits too: it may wait for what a finished task still holds.
            _take_done(running, 1, POLL_S)
            look()
        _take_done(running, len(running), EVALUATION_GRACE_S)
        for late in running:
            ray.cancel(late)
    except RayTaskError as error:
        raise own_error(error) from None
    finally:
        for place in running.values():
            remove_placement_group(place)


def _take_done(running: dict[ray.ObjectRef[None], PlacementGroup], num_wanted: int, timeout_s: float) -> None:
    """Wait until so many tasks are done, or for a time; take them out and raise what they raised."""
    if not running:
        time.sleep(timeout_s if num_wanted else 0.0)
        return
    done, _ = ray.wait(list(running), num_returns=num_wanted, timeout=timeout_s)
    for task in done:
        remove_placement_group(running.pop(task))
    ray.get(done)


def _evaluate(run_path: str, trial_json: str) -> None:
    from transferlib.on_ray.opening import logged_to, open_trial, trial_device
    from transferlib.training.trial import evaluate_chosen
    from transferlib.training.worker import LocalWorker

    run, trial = RunFolder(Path(run_path)), TrialSpec.from_json(trial_json)
    with trial_mirror(run, trial.trial_id), logged_to(run.log / f"{trial.trial_id}.log"):
        evaluate_chosen(open_trial(run, trial), LocalWorker(trial_device(load_plan(run.path))), split="test")
