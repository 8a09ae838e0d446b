"""Another job has every CPU: a job that waits for its turn ends all the same when it is told to stop."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import PlacementGroupID
from ray._private.state import actors
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from tests.on_ray.jobs import make_run, write_images
from transferlib.data.cache import DecodedCache
from transferlib.data.cache_dir import cache_folder
from transferlib.data.decode import Limits
from transferlib.errors import StoppedError
from transferlib.on_ray import experiment, tune
from transferlib.on_ray.experiment import run_job
from transferlib.on_ray.mirroring import OnDisk
from transferlib.on_ray.turns import Turns
from transferlib.on_ray.waiting import THREAD_NAME, wait_for_call
from transferlib.planning.plan import Plan
from transferlib.runs import RunFolder, read_json
from transferlib.spec import JobSpec

ENDS_WITHIN_S = 10


def refuse() -> None:
    raise StoppedError("told to stop")


def test_a_call_that_never_ends_is_left_behind() -> None:
    never = threading.Event()
    with pytest.raises(StoppedError):
        wait_for_call(never.wait, refuse)
    never.set()


def test_what_a_failed_call_held_is_free_at_once() -> None:
    class Held:
        pass

    holders: list[weakref.ref[Held]] = []

    def fail() -> None:
        held = Held()
        holders.append(weakref.ref(held))
        raise ZeroDivisionError

    gc.disable()
    try:
        with suppress(ZeroDivisionError):
            wait_for_call(fail, lambda: None)
        assert holders[0]() is None
    finally:
        gc.enable()


def test_a_call_gives_its_value_or_its_error() -> None:
    assert wait_for_call(lambda: 3, lambda: None) == 3
    with pytest.raises(ZeroDivisionError):
        wait_for_call(lambda: 1 // 0, lambda: None)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    data = write_images(tmp_path / "images", {"train": 8, "val": 2, "test": 2})
    return make_run(tmp_path / "runs", data, tmp_path / "cache")


def is_all_free() -> bool:
    """End what is left of worker groups, as the end of a job and Ray's dashboard would; return whether all is gone."""
    left = {actor["ActorClassName"]: actor["Pid"] for actor in actors().values() if actor["State"] == "ALIVE"}
    if "PlacementGroupCleaner" in left:  # it outlives a job, and asks the dashboard, which is not here, for its end
        with suppress(ProcessLookupError):  # Ray's table of actors is a little late
            os.kill(left["PlacementGroupCleaner"], signal.SIGKILL)
    if left.keys() & {"TrainController", "PlacementGroupCleaner"}:
        return False
    groups = [id_ for id_, group in placement_group_table().items() if group["state"] != "REMOVED"]
    for id_ in groups:
        remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(id_)))
    return not groups and ray.available_resources().get("CPU") == 2


@pytest.fixture
def other_job(ray_instance: None) -> Iterator[None]:
    """Hold all CPUs of the session's Ray."""

    class Holder:
        def ready(self) -> bool:
            return True

    actor: Any = ray.remote(num_cpus=2)(Holder).remote()
    ray.get(actor.ready.remote())
    yield
    # What a stopped job leaves behind goes with its process; here that is the session's.
    ray.kill(actor)
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join(30)
    deadline = time.monotonic() + 60
    while not is_all_free():
        assert time.monotonic() < deadline, "a CPU is not given back"
        time.sleep(0.1)


@pytest.fixture
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stop_when(run: RunFolder, condition: Callable[[], bool]) -> list[float]:
    """Ask a run to stop once something is so; the list gets the time of that."""
    asked: list[float] = []

    def follow() -> None:
        while not condition():
            time.sleep(0.02)
        asked.append(time.monotonic())
        run.stop_flag.touch()

    threading.Thread(target=follow, daemon=True).start()
    return asked


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("phase", ["reading the images", "loading the weights"])
@pytest.mark.usefixtures("other_job", "_signals_as_before")
def test_a_job_whose_preparation_waits_for_cpus_is_stopped(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setattr(experiment, "cluster_ray", nullcontext)
    spec = JobSpec.load(run.spec)
    if phase != "reading the images":
        limits = Limits(spec.data.max_pixels, spec.data.max_file_bytes)
        cache = DecodedCache(cache_folder(spec.data.cache), spec.short_side, limits)
        cache.ingest([str(path) for path in Path(spec.data.path).rglob("*.png")])
    asked = stop_when(run, lambda: (read_json(run.status) or {}).get("message") == phase)
    assert run_job(run, is_on_cluster=True) == StoppedError.exit_code
    assert time.monotonic() - asked[0] < ENDS_WITHIN_S
    status = read_json(run.status)
    assert (status["state"], status["exit_code"]) == ("stopped", 5)
    assert "--resume" in status["error"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.usefixtures("other_job")
def test_trials_that_wait_for_cpus_are_given_up(
    tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    data = Path(JobSpec.load(run.spec).data.path)
    run = make_run(
        tmp_path / "runs",
        data,
        tmp_path / "cache",
        resources={"workers_per_trial": num_workers},
        comparison={"lr_candidates": 2},
    )
    plan = Plan.from_json(run.plan.read_text())
    asked: list[float] = []

    class StopOnceTrialsWait(tune.EndWhenStopped):
        """Be told to stop when Ray knows of something that it has no room for."""

        def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
            is_waiting = any(group["state"] == "PENDING" for group in placement_group_table().values())
            is_begun = num_workers == 1 or any(trial.status == "RUNNING" for trial in trials)
            if is_waiting and is_begun and not asked:
                asked.append(time.monotonic())
                run.stop_flag.touch()
            super().on_step_begin(iteration, trials, **info)

    monkeypatch.setattr(tune, "EndWhenStopped", StopOnceTrialsWait)
    turns = Turns(plan, is_shared=False)
    assert tune.run_trials(run, plan, plan.trials, OnDisk(), turns, lambda: None) == {}
    assert time.monotonic() - asked[0] < ENDS_WITHIN_S
    assert [run.trial(trial.trial_id).read_result() for trial in plan.trials] == [None, None]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("other_job")
def test_evaluations_that_wait_for_cpus_are_given_up(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "EVALUATION_GRACE_S", 0.5)
    plan = Plan.from_json(run.plan.read_text())
    began = time.monotonic()
    asked = stop_when(run, lambda: time.monotonic() - began > 1)
    tune.evaluate_trials(run, plan, plan.trials, Turns(plan, is_shared=False), lambda: None)
    assert time.monotonic() - asked[0] < ENDS_WITHIN_S


@pytest.mark.ray
@pytest.mark.usefixtures("ray_instance")
def test_a_job_that_yields_keeps_nothing_that_is_done(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier job comes while the first of two trials is read, and waits for everything."""
    plan = replace(Plan.from_json(run.plan.read_text()), concurrency=2, cpus_per_worker=1)
    (trial,) = plan.trials

    class Earlier:
        def __init__(self) -> None:
            self.has_come = False

        def must_yield(self) -> bool:
            before, self.has_come = self.has_come, True
            return before and any(group["state"] == "CREATED" for group in placement_group_table().values())

    monkeypatch.setattr(tune, "_evaluate", lambda run_path, trial_json: None)
    deadline = time.monotonic() + 60

    def look() -> None:
        assert time.monotonic() < deadline, "both jobs wait for each other"

    tune.evaluate_trials(run, plan, [trial, replace(trial, key=replace(trial.key, seed=1))], Earlier(), look)  # type: ignore[arg-type]


def test_a_trial_of_a_stopped_run_is_done_before_it_begins(run: RunFolder) -> None:
    (trial,) = Plan.from_json(run.plan.read_text()).trials
    run.stop_flag.touch()
    trainable = tune.OneWorkerTrial({"run": str(run.path), "trial": trial.to_json()})
    assert trainable.step() == {"done": True}
