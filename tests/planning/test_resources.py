from itertools import product

import pytest

from transferlib.errors import PlanError
from transferlib.planning.machine import Machine
from transferlib.planning.resources import derive_resources
from transferlib.spec import ResourcesSpec


def machine(cpus: int = 2, gpus: int = 0) -> Machine:
    return Machine(cpus=cpus, gpus=gpus, memory_bytes=64 * 2**30, disk_free_bytes=10**12)


def wanted(**values: int) -> ResourcesSpec:
    return ResourcesSpec.model_validate(values)


def test_whatever_fits_reserves_a_share_for_its_images() -> None:
    machines = product([0, 1, 2, 4, 5, 8], [1, 2, 3, 4, 5, 8, 16, 17, 64, 256])
    for (gpus, cpus), workers, num_trials in product(machines, [1, 2, 3, 4, 8], [1, 2, 9, 54]):
        case = f"{gpus} GPUs, {cpus} CPUs, {workers} workers, {num_trials} trials"
        asked = wanted(gpus_per_trial=workers) if gpus else wanted(workers_per_trial=workers)
        try:
            resources = derive_resources(asked, machine(cpus, gpus), num_trials)
        except PlanError:
            assert workers > (gpus or max(2, cpus)), case
            continue
        taken = resources.concurrency * workers * resources.cpus_per_worker
        assert 1 <= resources.concurrency <= num_trials, case
        assert 0 < resources.data_cpus < resources.cpus_per_worker, case
        assert taken <= resources.ray_cpus, case
        assert resources.ray_cpus == max(2, cpus), case
        assert 1 <= resources.threads_per_worker <= 8, case
        assert resources.concurrency * workers <= gpus or not gpus, case
        busy = resources.threads_per_worker * resources.concurrency * workers
        assert busy <= cpus or resources.threads_per_worker == 1, case


@pytest.mark.parametrize(
    ("cpus", "reserved", "data_cpus", "concurrency", "threads"),
    [
        (1, 2, 1, 1, 1),
        (2, 2, 1, 1, 2),
        (3, 1.5, 0.5, 2, 1),
        (4, 1.3333, 0.3333, 3, 1),
        (9, 2.25, 0.25, 4, 2),
        (16, 3.2, 0.2, 5, 3),
        (64, 4.2666, 0.2666, 15, 4),
    ],
)
def test_one_worker_trials_share_the_cpus(
    cpus: int, reserved: float, data_cpus: float, concurrency: int, threads: int
) -> None:
    resources = derive_resources(wanted(), machine(cpus), num_trials=54)
    assert (resources.cpus_per_worker, resources.concurrency) == (reserved, concurrency)
    assert resources.data_cpus == pytest.approx(data_cpus)
    assert resources.threads_per_worker == threads


def test_a_trial_alone_reserves_no_more_than_it_can_use() -> None:
    resources = derive_resources(wanted(), machine(64), num_trials=1)
    assert (resources.threads_per_worker, resources.cpus_per_worker, resources.data_cpus) == (8, 16, 12)


def test_two_workers_on_two_cpus_train_on_half_a_cpu_each() -> None:
    resources = derive_resources(wanted(workers_per_trial=2), machine(2), num_trials=9)
    assert (resources.cpus_per_worker, resources.data_cpus) == (1, 0.5)
    assert (resources.concurrency, resources.threads_per_worker) == (1, 1)


def test_few_trials_get_more_threads() -> None:
    assert derive_resources(wanted(), machine(16), num_trials=1).threads_per_worker == 8


def test_gpus_are_shared_out_over_trials() -> None:
    resources = derive_resources(wanted(gpus_per_trial=2), machine(16, 8), num_trials=54)
    assert (resources.concurrency, resources.workers_per_trial) == (4, 2)
    assert (resources.cpus_per_worker, resources.data_cpus) == (2, 1)


def test_many_gpus_on_few_cpus_leave_a_cpu_for_the_data() -> None:
    resources = derive_resources(wanted(), machine(4, 4), num_trials=54)
    assert resources.concurrency == 4
    assert (resources.cpus_per_worker, resources.data_cpus) == (1, 0.25)


def test_gpus_zero_trains_on_cpu() -> None:
    assert not derive_resources(wanted(gpus=0), machine(4, 4), num_trials=9).use_gpu


def test_given_threads_are_kept() -> None:
    assert derive_resources(wanted(threads_per_worker=1), machine(16), 1).threads_per_worker == 1


@pytest.mark.parametrize(
    ("asked", "there", "words"),
    [
        (wanted(cpus=8), machine(2), "--cpus 8: this machine has 2"),
        (wanted(gpus=4), machine(8, 2), "--gpus 4: this machine has 2. Use --gpus 2"),
        (wanted(gpus=1), machine(8, 0), "--gpus 1: this machine has 0. Leave it out to train on CPU."),
        (wanted(gpus_per_trial=4), machine(8, 2), "one trial would need 4 GPUs, the job has 2"),
        (wanted(gpus_per_trial=2), machine(8, 0), "this machine has no GPU"),
        (wanted(workers_per_trial=2), machine(8, 2), "--gpus 0 to train on CPU"),
        (wanted(workers_per_trial=4), machine(2), "1 / 4 = 0.25 CPU a worker. Use --workers-per-trial 2 or fewer."),
    ],
)
def test_what_cannot_be_met_is_refused_with_the_arithmetic(asked: ResourcesSpec, there: Machine, words: str) -> None:
    with pytest.raises(PlanError) as error:
        derive_resources(asked, there, num_trials=9)
    assert words in str(error.value)


def test_all_demands_that_cannot_be_met_are_told_at_once() -> None:
    with pytest.raises(PlanError) as error:
        derive_resources(wanted(cpus=8, gpus=4, workers_per_trial=5), machine(2), num_trials=9)
    assert len(str(error.value).splitlines()) == 3
