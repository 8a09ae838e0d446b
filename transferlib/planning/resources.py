"""How many trials run side by side, and what each worker asks of Ray: pure arithmetic, so that nothing can deadlock.

The rules (docs: the same as in the error texts):

* Ray is started with `ray_cpus = max(2, usable CPUs)`: with one logical CPU Ray Data never delivers.
* One CPU is kept for Ray Data; trials share the rest. Workers that took all of them would wait for ever for images.
* Where one trial's workers would take all CPUs, they ask `(ray_cpus - 1) / workers` each.
* Threads are set apart from what is asked of Ray: the CPUs are shared out over the workers that run side by side.
* A worker lies on one node, so on a cluster no worker asks for more than a node has, and trials that no node has room
  for do not count. The workers of a trial may lie on several nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from transferlib.errors import PlanError
from transferlib.planning.machine import Machine, Node
from transferlib.planning.placement import count_slots
from transferlib.spec import ResourcesSpec

MAX_CPUS_PER_WORKER = 4
"""Small batches gain little from more; further CPUs go to more trials side by side."""
MAX_THREADS = 8
DATA_CPUS = 1
"""Kept for Ray Data."""
RAY_PRECISION = 10_000
"""Ray counts resources in steps of 1/10000."""


@dataclass(frozen=True)
class Resources:
    """Say what trials and their workers take."""

    workers_per_trial: int
    use_gpu: bool
    """One GPU a worker when true."""
    gpus: int
    """For the whole job."""
    cpus_per_worker: float
    """What a worker asks of Ray."""
    ray_cpus: int
    """What Ray is started with."""
    threads_per_worker: int
    """torch threads."""
    concurrency: int
    """Trials side by side."""

    @property
    def data_cpus(self) -> float:
        """Return the CPUs left to Ray Data when all trials that fit are running."""
        return self.ray_cpus - self.concurrency * self.workers_per_trial * self.cpus_per_worker


def derive_resources(wanted: ResourcesSpec, machine: Machine, num_trials: int) -> Resources:
    """Return how a job's trials share a machine.

    Args:
        wanted: What the user asked for.
        machine: What there is.
        num_trials: Of the whole job; no more run side by side.

    Raises:
        PlanError: Each demand that the machine cannot meet, with the arithmetic.
    """
    problems = [*_beyond_machine(wanted, machine), *_contradictions(wanted, machine)]
    if problems:
        raise PlanError("\n".join(problems))
    cpus = wanted.cpus or machine.cpus
    gpus = machine.gpus if wanted.gpus is None else wanted.gpus
    ray_cpus = max(2, cpus)
    workers = (wanted.gpus_per_trial if gpus else wanted.workers_per_trial) or 1
    if gpus:
        concurrency = min(num_trials, gpus // workers)
        cpus_per_worker = _share(ray_cpus - DATA_CPUS, concurrency * workers, 1)
        for node in machine.nodes:
            if node.gpus:
                cpus_per_worker = min(cpus_per_worker, _share(node.cpus, node.gpus, 1))
    else:
        cpus_per_worker, concurrency = _share_cpus(ray_cpus, workers, machine.nodes)
        concurrency = min(num_trials, concurrency)
    threads = min(MAX_THREADS, max(1, cpus // (concurrency * workers)))
    return Resources(
        workers_per_trial=workers,
        use_gpu=gpus > 0,
        gpus=gpus,
        cpus_per_worker=cpus_per_worker,
        ray_cpus=ray_cpus,
        threads_per_worker=wanted.threads_per_worker or threads,
        concurrency=concurrency,
    )


def _share_cpus(ray_cpus: int, workers: int, nodes: Sequence[Node]) -> tuple[float, int]:
    """Return CPUs a worker and trials side by side, when training on CPU."""
    free = ray_cpus - DATA_CPUS
    if workers > free:
        return _share(free, workers, 1), 1
    nodes = nodes or (Node("", ray_cpus, 0),)
    cpus_per_worker = min(MAX_CPUS_PER_WORKER, max(1, free // (4 * workers)))
    while cpus_per_worker > 1 and count_slots(nodes, cpus_per_worker, use_gpu=False) < workers:
        cpus_per_worker -= 1
    slots = count_slots(nodes, cpus_per_worker, use_gpu=False)
    return float(cpus_per_worker), min(free // cpus_per_worker, slots) // workers


def _share(cpus: int, workers: int, most: int) -> float:
    """Return an equal share of `cpus`, at most `most`, rounded down to what Ray can count."""
    return math.floor(min(Fraction(most), Fraction(cpus, workers)) * RAY_PRECISION) / RAY_PRECISION


def _beyond_machine(wanted: ResourcesSpec, machine: Machine) -> list[str]:
    problems = []
    if wanted.cpus is not None and wanted.cpus > machine.cpus:
        problems.append(
            f"--cpus {wanted.cpus}: {machine.name} has {machine.cpus} {_how_counted(machine)}. "
            f"Use --cpus {machine.cpus} or leave it out."
        )
    if wanted.gpus is not None and wanted.gpus > machine.gpus:
        use = f"Use --gpus {machine.gpus}" if machine.gpus else "Leave it out to train on CPU"
        add = ", or add workers (cluster/README.md)" if machine.nodes else ", or leave it out" if machine.gpus else ""
        problems.append(f"--gpus {wanted.gpus}: {machine.name} has {machine.gpus}. {use}{add}.")
    gpus = min(machine.gpus, machine.gpus if wanted.gpus is None else wanted.gpus)
    if gpus and (wanted.gpus_per_trial or 1) > gpus:
        problems.append(
            f"--gpus-per-trial {wanted.gpus_per_trial}: one trial would need {wanted.gpus_per_trial} GPUs, the job has "
            f"{gpus}. Use --gpus-per-trial {gpus} or fewer."
        )
    return problems


def _how_counted(machine: Machine) -> str:
    return "over all nodes" if machine.nodes else "usable (affinity, cgroup and SLURM counted in)"


def _contradictions(wanted: ResourcesSpec, machine: Machine) -> list[str]:
    gpus = min(machine.gpus, machine.gpus if wanted.gpus is None else wanted.gpus)
    ray_cpus = max(2, min(machine.cpus, wanted.cpus or machine.cpus))
    workers = wanted.workers_per_trial or 1
    problems = []
    if not gpus and wanted.gpus_per_trial:
        why = "--gpus 0 says to train on CPU" if machine.gpus else f"{machine.name} has no GPU"
        problems.append(f"--gpus-per-trial {wanted.gpus_per_trial}: {why}. Use --workers-per-trial for CPU training.")
    if gpus and wanted.workers_per_trial:
        problems.append(
            f"--workers-per-trial {wanted.workers_per_trial} is for CPU training, and this job has {gpus} GPUs. "
            "Use --gpus-per-trial, or --gpus 0 to train on CPU."
        )
    elif workers > ray_cpus:
        free = ray_cpus - DATA_CPUS
        problems.append(
            f"--workers-per-trial {workers}: {workers} workers share {ray_cpus} CPUs less {DATA_CPUS} for Ray Data: "
            f"{free} / {workers} = {free / workers:.2f} CPU a worker. Use --workers-per-trial {ray_cpus} or fewer."
        )
    return problems
