"""How many trials run side by side, and what each worker reserves: pure arithmetic, so that nothing can deadlock.

The rules (docs: the same as in the error texts):

* Ray is started with `ray_cpus = max(2, usable CPUs)`: with one logical CPU Ray Data never delivers.
* One CPU of each node is kept for images; trials share the rest. Where the workers of one trial would take all, they
  train on `(ray_cpus - 1) / workers` each.
* A worker and what makes its images are one reservation: what it trains on and its share of what is kept. So a trial
  runs or waits, and jobs that share a cluster never hold half of a trial each.
* Threads are set apart from what is asked of Ray: the CPUs are shared out over the workers that run side by side.
* A worker lies on one node, with its images, so no worker asks for more than a node has, and trials that no node has
  room for do not count. The workers of a trial may lie on several nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from transferlib.errors import PlanError
from transferlib.planning.machine import Machine, Node
from transferlib.spec import ResourcesSpec

MAX_CPUS_PER_WORKER = 4
"""Small batches gain little from more; further CPUs go to more trials side by side."""
MAX_THREADS = 8
DATA_CPUS = 1
"""Kept for images on each node."""
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
    """What a worker reserves: for training and for its images."""
    data_cpus: float
    """Of them, for its images."""
    ray_cpus: int
    """What Ray is started with."""
    threads_per_worker: int
    """torch threads."""
    concurrency: int
    """Trials side by side."""


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
    nodes = machine.nodes or (Node("", ray_cpus, gpus),)
    workers = (wanted.gpus_per_trial if gpus else wanted.workers_per_trial) or 1
    if gpus:
        training, concurrency = 1.0, min(num_trials, gpus // workers)
        share = min(Fraction(node.cpus, node.gpus) for node in nodes if node.gpus)
    else:
        training, concurrency = _share_cpus(ray_cpus, workers, nodes)
        concurrency = min(num_trials, concurrency)
        share = _largest_share(nodes, concurrency * workers)
    num_workers = concurrency * workers
    threads = min(MAX_THREADS, max(1, cpus // num_workers))
    # A worker that has more than it and its images can use keeps others of a cluster from their work.
    enough = 2 * max(Fraction(training), Fraction(threads))
    reserved = _rounded(min(share, Fraction(ray_cpus, num_workers), enough))
    training = min(training, _rounded(Fraction(ray_cpus - DATA_CPUS, num_workers)))
    if training >= reserved:
        training = reserved / 2
    return Resources(
        workers_per_trial=workers,
        use_gpu=gpus > 0,
        gpus=gpus,
        cpus_per_worker=reserved,
        data_cpus=reserved - training,
        ray_cpus=ray_cpus,
        threads_per_worker=wanted.threads_per_worker or threads,
        concurrency=concurrency,
    )


def _share_cpus(ray_cpus: int, workers: int, nodes: Sequence[Node]) -> tuple[float, int]:
    """Return on how many CPUs a worker trains, and trials side by side, when training on CPU."""
    free = ray_cpus - DATA_CPUS
    if workers > free:
        return float(Fraction(free, workers)), 1
    training = min(MAX_CPUS_PER_WORKER, max(1, free // (4 * workers)))
    while training > 1 and _training_slots(nodes, training) < workers:
        training -= 1
    return float(training), max(1, min(free // training, _training_slots(nodes, training)) // workers)


def _training_slots(nodes: Sequence[Node], training: int) -> int:
    """Return how many workers train on so many CPUs each where every node keeps one; a node of one CPU has one."""
    return sum(max(int(node.cpus == 1), (node.cpus - DATA_CPUS) // training) for node in nodes)


def _largest_share(nodes: Sequence[Node], num_workers: int) -> Fraction:
    """Return the most CPUs that each of so many workers can reserve, each on one node."""
    sizes = {node.cpus for node in nodes}
    shares = sorted({Fraction(size, number) for size in sizes for number in range(1, num_workers + 1)})
    return max(
        (share for share in shares if sum(node.cpus // share for node in nodes) >= num_workers), default=shares[0]
    )


def _rounded(cpus: Fraction) -> float:
    """Return a share of CPUs, rounded down to what Ray can count."""
    return math.floor(cpus * RAY_PRECISION) / RAY_PRECISION


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
