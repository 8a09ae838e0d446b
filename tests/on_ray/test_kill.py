"""Nothing is lost: whatever is killed, a trial ends with the weights of an undisturbed run, bit for bit (law 7)."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.on_ray.jobs import Job, make_run, num_epochs, process_ids, run_to_end, write_images
from transferlib.comparison.choose import read_choice
from transferlib.on_ray.processes import family, wait_for_end
from transferlib.planning.plan import Plan
from transferlib.records import TrialResult
from transferlib.runs import RunFolder, read_object

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TRIAL = "resnet18-full-s0-c0"
EPOCHS = 4


def result_of(run: RunFolder, trial_id: str = TRIAL) -> TrialResult:
    result = run.trial(trial_id).read_result()
    assert result is not None
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    return write_images(folder / "images", {"train": 60, "val": 6, "test": 6})


@pytest.fixture(scope="module")
def undisturbed(folder: Path, data: Path) -> TrialResult:
    run = make_run(folder / "runs", data, folder / "cache")
    assert run_to_end(run, folder) == 0
    return result_of(run)


@pytest.fixture(scope="module")
def undisturbed_pair(folder: Path, data: Path) -> TrialResult:
    run = make_run(folder / "runs", data, folder / "cache", resources={"workers_per_trial": 2})
    assert run_to_end(run, folder) == 0
    return result_of(run)


def epochs_trained(run: RunFolder) -> list[int]:
    """Return the epochs that a trial's log says were finished, in order, repeated ones too."""
    return [int(epoch) - 1 for epoch in re.findall(r"INFO Epoch (\d+) of", (run.log / f"{TRIAL}.log").read_text())]


def assert_at_most_one_epoch_repeated(run: RunFolder) -> None:
    epochs = epochs_trained(run)
    assert sorted(set(epochs)) == list(range(EPOCHS))
    assert len(epochs) <= EPOCHS + 1


def test_killed_one_worker_trial_ends_with_the_same_weights(folder: Path, data: Path, undisturbed: TrialResult) -> None:
    run = make_run(folder / "runs", data, folder / "cache")
    with Job(run, folder) as job:
        job.wait_until(lambda: num_epochs(run, TRIAL) >= 1)
        os.kill(process_ids(run, TRIAL)[-1], signal.SIGKILL)
        assert job.wait() == 0, job.tail()
    assert len(process_ids(run, TRIAL)) == 2
    assert result_of(run).weights_sha256 == undisturbed.weights_sha256
    assert num_epochs(run, TRIAL) == EPOCHS
    assert_at_most_one_epoch_repeated(run)


@pytest.mark.parametrize("program", ["gcs_server", "raylet"])
def test_job_whose_ray_dies_says_so_at_once_and_leaves_nothing(folder: Path, data: Path, program: str) -> None:
    run = make_run(folder / "runs", data, folder / "cache", training={"epochs": 100})
    with Job(run, folder) as job:
        job.wait_until(lambda: (read_object(run.status) or {}).get("state") == "running")
        members = family([job.process.pid], "no=marker")
        (victim,) = [p for p in members if p.command_line and p.command_line[0].endswith(f"/{program}")]
        (logs,) = {word.partition("=")[2] for word in victim.command_line if re.match("--log[-_]dir=", word)}
        os.kill(victim.pid, signal.SIGKILL)
        assert job.wait(20) == 1, job.tail()
        assert wait_for_end(members, 5.0) == set()
    status = read_object(run.status)
    assert status is not None
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert status["error"].startswith("The Ray of this job died: ")
    assert program in status["error"]
    assert f"--resume {run.path}" in status["error"]
    assert Path(logs).parents[2].name.startswith("tl-")
    assert not Path(logs).parents[2].exists()


def test_killed_driver_is_resumed_without_repeating_finished_trials(
    folder: Path, data: Path, undisturbed: TrialResult
) -> None:
    run = make_run(folder / "runs", data, folder / "cache", comparison={"seeds": [7, 0]})
    first = "resnet18-full-s7-c0"
    with Job(run, folder) as job:
        job.wait_until(lambda: num_epochs(run, TRIAL) >= 1)
        os.kill(job.process.pid, signal.SIGKILL)
        job.process.wait()
    finished = run.trial(first).result.stat().st_mtime_ns
    assert run_to_end(run, folder) == 0
    assert run.trial(first).result.stat().st_mtime_ns == finished
    assert len(process_ids(run, first)) == 1
    assert_at_most_one_epoch_repeated(run)
    assert result_of(run).weights_sha256 == undisturbed.weights_sha256


def test_killed_driver_decides_the_rates_again_as_it_had_and_trains_nothing_twice(folder: Path) -> None:
    few = write_images(folder / "few", {"train": 8, "val": 6, "test": 4})
    comparison = {"seeds": 3, "lr_candidates": [0.01, 0.03], "tuning_seeds": 1}
    run = make_run(folder / "runs", few, folder / "cache", comparison=comparison, training={"epochs": 1})
    plan = Plan.from_json(run.plan.read_text())

    def states() -> dict[str, str]:
        results = [run.trial(trial.trial_id).read_result() for trial in plan.trials]
        return {result.trial_id: result.state for result in results if result is not None}

    with Job(run, folder) as job:
        job.wait_until(lambda: sum(state == "done" for state in states().values()) >= 3)
        os.kill(job.process.pid, signal.SIGKILL)
        job.process.wait()
    before = states()
    spared = {trial_id for trial_id, state in before.items() if state == "spared"}
    finished = {trial_id: run.trial(trial_id).result.stat().st_mtime_ns for trial_id in before}
    assert run_to_end(run, folder) == 0
    assert {trial_id: run.trial(trial_id).result.stat().st_mtime_ns for trial_id in before} == finished
    assert {trial_id for trial_id, state in states().items() if state == "spared"} == spared
    assert len(states()) == len(plan.trials) == 6
    (candidate,) = {int(trial_id[-1]) for trial_id in spared}
    assert spared == {f"resnet18-full-s{seed}-c{candidate}" for seed in (1, 2)}
    trained = {trial.trial_id for trial in plan.trials} - spared
    assert {trial_id: num_epochs(run, trial_id) for trial_id in trained} == dict.fromkeys(trained, 1)
    assert not any(process_ids(run, trial_id) or num_epochs(run, trial_id) for trial_id in spared)
    processes = [process_ids(run, trial_id) for trial_id in sorted(trained)]
    assert len({process for of_trial in processes[:3] for process in of_trial[:1]}) == 1, (
        "the first job's are one process"
    )
    choice = read_choice(run)
    assert choice is not None
    assert {trial.seed for trial in choice.chosen} == {0, 1, 2}
    tuned = min((result_of(run, f"resnet18-full-s0-c{c}") for c in (0, 1)), key=lambda r: (-r.score, r.val_loss, r.lr))
    assert [trial.candidate for trial in choice.chosen] == [tuned.candidate] * 3
    assert candidate != tuned.candidate


def test_stopped_run_with_a_truncated_newest_checkpoint_goes_on_from_the_one_before(
    folder: Path, data: Path, undisturbed: TrialResult
) -> None:
    run = make_run(folder / "runs", data, folder / "cache")
    with Job(run, folder) as job:
        job.wait_until(lambda: num_epochs(run, TRIAL) >= 2)
        job.process.send_signal(signal.SIGTERM)
        assert job.wait() == 5, job.tail()
    assert run.trial(TRIAL).read_result() is None or result_of(run).state == "stopped"
    newest = max(
        (path for path in run.trial(TRIAL).checkpoints.iterdir() if path.is_dir()),
        key=lambda path: path.stat().st_mtime_ns,
    )
    tensors = max(newest.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    os.truncate(tensors, tensors.stat().st_size // 2)
    assert run_to_end(run, folder) == 0
    assert result_of(run).weights_sha256 == undisturbed.weights_sha256
    assert "WARNING" in (run.log / f"{TRIAL}.log").read_text()


def test_killed_rank_of_a_worker_group_ends_with_the_same_weights(
    folder: Path, data: Path, undisturbed_pair: TrialResult
) -> None:
    run = make_run(folder / "runs", data, folder / "cache", resources={"workers_per_trial": 2})
    with Job(run, folder) as job:
        job.wait_until(lambda: num_epochs(run, TRIAL) >= 1)
        os.kill(process_ids(run, TRIAL, rank=1)[-1], signal.SIGKILL)
        assert job.wait() == 0, job.tail()
    assert len(process_ids(run, TRIAL)) == 2
    assert_at_most_one_epoch_repeated(run)
    assert result_of(run).weights_sha256 == undisturbed_pair.weights_sha256
