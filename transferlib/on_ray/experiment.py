"""One job from its run folder to its result: prepare, train, choose, read the test set once, report.

What is done stands in the run folder, so a job that ends at any point goes on from there (`submit compare --resume`).
"""

from __future__ import annotations

import json
import logging
import shlex
import time
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from transferlib.comparison.choose import choose_candidates, read_choice
from transferlib.comparison.leaderboard import write_leaderboard
from transferlib.comparison.ledger import record_reading
from transferlib.data.cache_dir import default_cache_dir
from transferlib.errors import (
    EXIT_SOME_FAILED,
    DamagedFileError,
    DataError,
    StoppedError,
    TransferlibError,
    TrialError,
)
from transferlib.evaluation.predictions import Predictions, merge_predictions
from transferlib.on_ray.board import trial_board
from transferlib.on_ray.mirroring import KeptRun, driver_mirror
from transferlib.on_ray.prepare import draw_mosaic, prepare_data, settle, start_preparing_models
from transferlib.on_ray.pruning import losers
from transferlib.on_ray.session import cluster_ray, local_ray, object_store_bytes
from transferlib.on_ray.tune import evaluate_trials, run_trials
from transferlib.on_ray.turns import Turns
from transferlib.on_ray.waiting import wait_for, wait_for_call
from transferlib.on_ray.watch import Watch
from transferlib.planning.fit import check_steps
from transferlib.planning.machine import detect_machine
from transferlib.planning.plan import Plan
from transferlib.records import FINISHED, TrialResult, TrialSpec
from transferlib.runs import RunFolder, disk_full_text, is_disk_full, write_atomic
from transferlib.spec import JobSpec
from transferlib.telemetry.exporter import serve_metrics
from transferlib.words import count

log = logging.getLogger("transferlib.job")


def run_job(run: RunFolder, *, is_on_cluster: bool = False) -> int:
    """Run the job of a run folder, or what is left of it.

    Args:
        run: Holds `spec.yaml` and `plan.json`.
        is_on_cluster: Use the cluster that started this process, instead of a Ray of the job's own.

    Returns:
        The exit code; `status.json` says the same, with the error's text where there is one.
    """
    # The lock goes before the metrics do: a job that waits for its last scrape holds nobody up.
    with ExitStack() as metrics:
        try:
            with run.locked(), driver_mirror(run) as kept:
                return _run_and_record(run, kept, metrics, is_on_cluster=is_on_cluster)
        except TransferlibError as error:  # the lock is another's: its status is not ours to write
            print(error, flush=True)
            return error.exit_code


def _run_and_record(run: RunFolder, kept: KeptRun, metrics: ExitStack, *, is_on_cluster: bool) -> int:
    """Run the job; whatever ends it, `status.json` says so."""
    try:
        job = _Job(run, kept, is_on_cluster=is_on_cluster)
        metrics.enter_context(serve_metrics(run, job.plan))
        return job.run()
    except TransferlibError as error:
        state = "stopped" if isinstance(error, StoppedError) else "failed"
        run.set_status(state, exit_code=error.exit_code, error=str(error))
        log.error("%s: %s", state, error)
        return error.exit_code
    except SystemExit:  # SIGTERM while `ray.init` has its own handler there
        run.set_status("stopped", exit_code=StoppedError.exit_code, error="Stopped while Ray was starting.")
        return StoppedError.exit_code
    except Exception as error:
        traceback.print_exc()
        is_full = is_disk_full(error)
        text = disk_full_text(run.path) if is_full else f"{type(error).__name__}: {error}"
        run.set_status("failed", exit_code=1, error=text, traceback=not is_full)
        return 1


class _Job:
    """Hold what the phases of one job share."""

    def __init__(self, run: RunFolder, kept: KeptRun, *, is_on_cluster: bool) -> None:
        self._run = run
        self._kept = kept
        self._is_on_cluster = is_on_cluster
        self._spec = JobSpec.load(run.spec)
        self.plan = Plan.load(run.plan)
        self._turns = Turns(self.plan, is_shared=is_on_cluster)
        self._shown_at = time.monotonic()
        self._state, self._message, self._waiting = "preparing", "", ""

    def run(self) -> int:
        """Go through the phases; return the exit code."""
        run, plan = self._run, self.plan
        if (_status_now(run) or {}).get("state") != "preparing":
            run.stop_flag.unlink(missing_ok=True)  # of the job before; one of this job's own, however early, holds
        self._refuse_to_go_on_if_stopped()
        self._phase("preparing", "joining the cluster" if self._is_on_cluster else "starting Ray")
        with Watch(run, plan.trials) as watch, self._session(), trial_board(is_shown=self._is_on_cluster):
            watch.take_signals()
            self._prepare()
            self._train()
            self._finish()
            self._phase("evaluating", "stopping Ray")
        self._phase("evaluating", "stopped Ray")
        results = self._results()
        failed = [result for result in results if result.state == "failed"]
        code = EXIT_SOME_FAILED if failed else 0
        run.set_status("done", exit_code=code, message=_failures(failed))
        log.info("done with exit code %d. %s", code, _failures(failed) or "No trial failed.")
        return code

    def _session(self) -> AbstractContextManager[None]:
        if self._is_on_cluster:
            return cluster_ray()
        run, plan = self._run, self.plan
        memory = detect_machine(run.path, default_cache_dir()).memory_bytes
        return local_ray(
            cpus=plan.ray_cpus,
            gpus=plan.gpus if plan.use_gpu else 0,
            object_store=object_store_bytes(memory, plan.concurrency * plan.workers_per_trial),
        )

    def _phase(self, state: str, message: str) -> None:
        """Enter a phase: `status.json` says so now, `log/timeline.jsonl` for later (where do the seconds go?)."""
        self._state, self._message, self._waiting = state, message, ""
        self._run.set_status(state, message=message)
        log.info("%s: %s", state, message)
        with open(self._run.log / "timeline.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"at": time.time(), "state": state, "message": message}) + "\n")

    def _say_waiting(self) -> None:
        """Say in `status.json` what the job waits for, where it waits; call it often."""
        waiting = self._turns.explain()
        if waiting != self._waiting:
            self._waiting = waiting
            log.info("%s", waiting or "waits no longer")
            self._run.set_status(self._state, message="; ".join(filter(None, (self._message, waiting))))

    def _look(self) -> None:
        """Look twice a second, while there is nothing to do but wait: is the job to stop, and what does it wait for?"""
        self._refuse_to_go_on_if_stopped()
        self._say_waiting()

    def tell(self, line: str) -> None:
        """Add a line for the user to `log/messages.txt`."""
        log.info(line)
        with open(self._run.log / "messages.txt", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _prepare(self) -> None:
        run, spec, plan = self._run, self._spec, self.plan
        models = start_preparing_models(spec, plan)
        self._phase("preparing", "reading the images")
        read = partial(prepare_data, run, spec, plan, self.tell, self._show_preparing)
        manifest = wait_for_call(read, self._look)
        of_trials = {(trial.seed, trial.fold): manifest.images(trial.key) for trial in plan.trials}
        check_steps(spec, min(len(images.rows("train")) for images in of_trials.values()), plan.workers_per_trial)
        if not run.mosaic.exists():
            draw_mosaic(run, spec)
        self._phase("preparing", "loading the weights")
        prepared = wait_for(models, self._look)
        if isinstance(prepared, Exception):
            raise prepared
        prepared = settle(run, prepared, plan, manifest.sha256())
        origins = dict.fromkeys(prepared.origins.values()) or ("none: every strategy starts from random weights",)
        threads = count(plan.threads_per_worker, "thread")
        self.tell(f"Weights: {'; '.join(origins)}. Precision {prepared.precision}, {threads} a worker.")
        for note in prepared.notes:
            self.tell(note)
        for trial in plan.trials:
            folder = run.trial(trial.trial_id)
            if not folder.spec.exists():
                folder.path.mkdir(parents=True, exist_ok=True)
                write_atomic(folder.spec, trial.to_json() + "\n")
        self._refuse_to_go_on_if_stopped()

    def _show_preparing(self, what: str, num_done: int, num_images: int) -> None:
        """Say how far it is; a stop that is asked for meanwhile ends it, what is in the cache stays there.

        Raises:
            StoppedError: To the thread that works; the job itself says more.
        """
        if not self._message.startswith(what) or time.monotonic() - self._shown_at > 1.0:
            self._shown_at = time.monotonic()
            self._message = f"{what}, {num_done:,} of {num_images:,}"
            self._run.set_status("preparing", message=self._message)
        if self._run.stop_flag.exists():
            raise StoppedError(f"Stopped while {what}.")

    def _train(self) -> None:
        run, plan = self._run, self.plan
        self._put_back_damaged()
        pending = [trial for trial in plan.trials if not self._is_finished(trial)]
        num_done, num_trials = self._progress()
        if num_done:
            self.tell(f"{num_done} of {num_trials} trials are finished already.")
        self._phase("running", f"{count(num_trials - num_done, 'trial')} to train")
        reasons = run_trials(run, plan, pending, self._kept, self._turns, self._say_waiting)
        self._refuse_to_go_on_if_stopped()
        lost = [trial.trial_id for trial in self._expected() if not self._is_finished(trial)]
        if lost:
            write_report(run)
            some = "; ".join(f"{trial_id}: {reasons.get(trial_id, '?')}" for trial_id in lost[:3])
            raise TransferlibError(
                f"{len(lost)} of {self._progress()[1]} trials could not be brought to their end ({some}). Nothing is "
                f"chosen yet and their checkpoints are kept. When the cause is gone: {self._resume_command()}"
            )

    def _put_back_damaged(self) -> None:
        """Let finished trials whose files are not what they wrote be trained again, before any other is."""
        for trial in self.plan.trials:
            folder = self._run.trial(trial.trial_id)
            try:
                if damaged := folder.damaged_files():
                    names = " and ".join(path.name for path in damaged)
                    self._train_again(trial, f"{names} is not what it wrote (another sha256)", damaged)
                elif folder.read_result() is None:
                    self._kept.remove(folder.predictions("test"))  # of a result that is gone
            except DamagedFileError as error:
                if isinstance(error.__cause__, OSError):  # it may well be whole
                    raise
                self._train_again(trial, f"{folder.result.name} is damaged")
        without_model = self._without_model()
        for trial in self.plan.trials:
            folder = self._run.trial(trial.trial_id)
            left = folder.lost_files(has_model=trial.trial_id not in without_model)
            if lost := [path for path in left if not self._kept.has(path)]:
                self._train_again(trial, f"{' and '.join(path.name for path in lost)} is missing or empty", lost)

    def _train_again(self, trial: TrialSpec, why: str, damaged: Sequence[Path] = ()) -> None:
        self.tell(f"Trial {trial.trial_id} is trained again: {why}.")
        folder = self._run.trial(trial.trial_id)
        for path in (folder.result, folder.predictions("test"), *damaged):
            self._kept.remove(path)

    def _without_model(self) -> set[str]:
        """Return the trials whose model is not kept."""
        if self._spec.output.keep != "chosen":
            return set()
        try:
            choice = read_choice(self._run)
        except DamagedFileError:
            choice = None
        if choice is None:
            return set(losers(self._run, self.plan.trials))
        return {trial.trial_id for trial in self.plan.trials} - set(choice.trial_ids)

    def _finish(self) -> None:
        run, plan = self._run, self.plan
        results = self._results()
        if all(result.state == "failed" for result in results):
            write_report(run)
            raise TransferlibError(f"All {len(results)} trials failed. {_failures(results)}")
        self._phase("evaluating", "choosing on validation, then reading the test set once")
        chosen = set(choose_candidates(run).trial_ids)
        record_reading(run)
        tested = [trial for trial in plan.trials if trial.trial_id in chosen]
        self._drop_damaged_tables(tested)
        evaluate_trials(run, plan, tested, self._turns, self._say_waiting)
        self._refuse_to_go_on_if_stopped()
        self._kept.pull()
        self._phase("evaluating", "writing the report")
        merge_predictions(run)
        comparison = write_leaderboard(run)
        if comparison.model is not None:
            self._kept.copy(run.trial(comparison.model.trial.trial_id).best, run.model)
        write_report(run)
        if self._spec.output.keep == "chosen":
            for trial in plan.trials:
                if trial.trial_id not in chosen:
                    self._kept.remove(run.trial(trial.trial_id).best)

    def _drop_damaged_tables(self, trials: Sequence[TrialSpec]) -> None:
        """Let test predictions that cannot be read be made again: by the same model they come out the same."""
        for trial in trials:
            path = self._run.trial(trial.trial_id).predictions("test")
            if path.is_file():
                try:
                    Predictions.load(path)
                except (DataError, TrialError):
                    self.tell(f"The test predictions of {trial.trial_id} are damaged, and made again.")
                    self._kept.remove(path)

    def _is_finished(self, trial: TrialSpec) -> bool:
        result = self._run.trial(trial.trial_id).read_result()
        return result is not None and result.state in FINISHED

    def _results(self) -> list[TrialResult]:
        """Return how the trials that were trained ended."""
        results = (self._run.trial(trial.trial_id).read_result() for trial in self.plan.trials)
        return [result for result in results if result is not None and result.state != "spared"]

    def _expected(self) -> tuple[TrialSpec, ...]:
        """Return the trials that are trained, as far as is known now."""
        return self.plan.tuning.expected({result.trial_id: result for result in self._results()})

    def _progress(self) -> tuple[int, int]:
        """Return how many trials are finished, and how many are trained in all."""
        expected = self._expected()
        return sum(self._is_finished(trial) for trial in expected), len(expected)

    def _resume_command(self) -> str:
        # On a cluster this folder may be the node's own; the id is what the user's machine knows the run by.
        name = self._run.run_id if self._is_on_cluster else self._run.path
        return f"submit {self._spec.verb} --resume {shlex.quote(str(name))}"

    def _refuse_to_go_on_if_stopped(self) -> None:
        if not self._run.stop_flag.exists():
            return
        num_done, num_trials = self._progress()
        if num_done:
            write_report(self._run)
        raise StoppedError(
            f"Stopped with {num_done} of {count(num_trials, 'trial')} finished; checkpoints of the others are kept. "
            f"Go on with: {self._resume_command()}"
        )


def _status_now(run: RunFolder) -> dict[str, Any] | None:
    """Return `status.json`; None where it cannot be read: this job writes it anew."""
    try:
        return run.read_status()
    except DamagedFileError:
        return None


def write_report(run: RunFolder) -> None:
    """Write the report; matplotlib is loaded only now."""
    from transferlib import report

    report.write_report(run)


def _failures(failed: Sequence[TrialResult]) -> str:
    if not failed:
        return ""
    reasons = "; ".join(f"{result.trial_id}: {result.reason}" for result in failed[:3])
    more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
    return f"{len(failed)} trials failed: {reasons}{more}."
