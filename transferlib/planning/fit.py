"""Whether a job fits: its steps, its memory, its disk. What does not is refused with the arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

from transferlib.errors import PlanError, WeightsError
from transferlib.models.remote_weights import check_object
from transferlib.models.run_weights import find_run_model
from transferlib.models.sizes import counted
from transferlib.models.weight_names import resolve_weights
from transferlib.planning.cost import Cost
from transferlib.planning.footprint import job_bytes, worker_bytes
from transferlib.planning.machine import Machine
from transferlib.planning.option_notes import trains_batchnorm
from transferlib.planning.resources import Resources, derive_resources
from transferlib.spec import JobSpec
from transferlib.words import size


def check_steps(spec: JobSpec, num_train_images: int, workers_per_trial: int) -> None:
    """Refuse steps too small to train on; called on the expected images, and by the job on the real ones.

    A step has floor or ceil of the mean step size, and a worker floor or ceil of its share of the step. A BatchNorm in
    train mode needs more than one value a channel: in the whole step, or in each share with `--no-sync-batchnorm`.

    Args:
        spec: Batch size, image size, architectures.
        num_train_images: In the training split.
        workers_per_trial: Workers that share a step.

    Raises:
        PlanError: A worker would have no image in some step, or a BatchNorm a single value, or images are too small.
    """
    problems = [
        f"{architecture} needs images of at least {smallest} px, --image-size is {spec.data.image_size}."
        for architecture in spec.models.architectures
        if spec.data.image_size < (smallest := counted(architecture).min_pixels)
    ]
    batch = spec.training.global_batch_size
    num_steps = max(1, math.ceil(num_train_images / batch))
    step = num_train_images // num_steps
    share = step // workers_per_trial
    how = (
        f"{num_train_images} training images in {num_steps} steps of at most {batch} (--global-batch-size) are "
        f"{step} images in the smallest step, {share} a worker with {workers_per_trial} workers"
    )
    if share < 1:
        problems.append(f"{how}: some worker would have nothing to do. Use fewer workers a trial.")
    elif (step if spec.training.sync_batchnorm else share) == 1 and _has_single_value_batchnorm(spec):
        ways = ("--sync-batchnorm, fewer workers a trial", "another --global-batch-size", "or larger images")
        problems.append(
            f"{how}: at --image-size {spec.data.image_size} a BatchNorm would see a single value a channel. "
            f"Use {', '.join(ways[step == 1 :])}."
        )
    if problems:
        raise PlanError("\n".join(problems))


def _has_single_value_batchnorm(spec: JobSpec) -> bool:
    return any(
        spec.data.image_size <= counted(architecture).single_value_pixels
        for architecture in spec.models.architectures
        if trains_batchnorm(spec, architecture)
    )


def fit_to_memory(
    spec: JobSpec, num_classes: int, num_images: int, resources: Resources, machine: Machine, num_trials: int
) -> tuple[Resources, tuple[str, ...]]:
    """Run fewer trials side by side where main memory would not hold them.

    Args:
        spec: Networks and batch size.
        num_classes: Of the new head.
        num_images: In all splits.
        resources: As the CPUs and GPUs allow.
        machine: Its memory.
        num_trials: Of the whole job.

    Returns:
        The resources, and a sentence for the user where something was changed or is doubtful.
    """
    wanted = resources.concurrency
    have = machine.memory_bytes
    while (need := job_bytes(spec, num_classes, num_images, resources)) > have and resources.concurrency > 1:
        resources = derive_resources(spec.resources, machine, min(num_trials, resources.concurrency - 1))
    notes = []
    if resources.concurrency < wanted:
        worker, _ = worker_bytes(spec, num_classes, resources.workers_per_trial, use_gpu=resources.use_gpu)
        notes.append(
            f"{resources.concurrency} instead of {wanted} trials side by side: each takes about "
            f"{size(worker * resources.workers_per_trial)} of memory, {machine.name} has {size(have)}."
        )
    if need > have:
        notes.append(
            f"Memory may not suffice: about {size(need)} are needed, {machine.name} has {size(have)}. "
            "A smaller --global-batch-size or --image-size needs less."
        )
    return resources, tuple(notes)


def gpu_memory_notes(cost: Cost, machine: Machine) -> tuple[str, ...]:
    """Return a sentence for the user where a trial may need more memory than its GPU is known to have.

    Args:
        cost: Of the job.
        machine: Its smallest GPU.
    """
    need, have = cost.gpu_memory_bytes, machine.gpu_memory_bytes
    if not have or need <= have:
        return ()
    return (
        f"GPU memory may not suffice: the largest trial takes about {size(need)} of each of its GPUs, and the "
        f"smallest GPU has {size(have)}. A smaller --global-batch-size or --image-size, or more "
        "--gpus-per-trial, needs less.",
    )


def check_weights(spec: JobSpec) -> None:
    """Refuse weights that are not there, and a run that has no model of a network, before anything is loaded.

    Args:
        spec: Networks and weights.

    Raises:
        WeightsError: One line an architecture that cannot start from them.
    """
    problems = []
    for architecture in spec.models.architectures:
        try:
            choice = resolve_weights(spec.models.weights, architecture)
            if choice.kind == "folder":
                find_run_model(Path(choice.value), architecture)
            elif choice.kind == "object":
                check_object(choice.value)
        except WeightsError as error:
            problems.append(str(error))
    if problems:
        raise WeightsError("\n".join(dict.fromkeys(problems)))


def refuse_if_too_big(spec: JobSpec, cost: Cost, machine: Machine) -> None:
    """Refuse a job that the disk cannot hold, or a network that memory cannot.

    Raises:
        PlanError: With the arithmetic.
    """
    problems = []
    has_cache = machine.cache_free_bytes is not None
    need = cost.run_bytes + (0 if has_cache else cost.cache_bytes)
    if need > machine.disk_free_bytes:
        parts = f"{size(cost.run_bytes)} for models and checkpoints"
        parts += "" if has_cache else f" + {size(cost.cache_bytes)} for decoded images"
        problems.append(
            f"Disk: {parts} = {size(need)} at peak, and {size(machine.disk_free_bytes)} are free under "
            f"{spec.output.runs_dir}. Use a larger disk (--runs DIR, --cache-dir DIR), --cache none, or fewer or "
            "smaller networks."
        )
    if machine.cache_free_bytes is not None and cost.cache_bytes > machine.cache_free_bytes:
        problems.append(
            f"Disk: {size(cost.cache_bytes)} for decoded images, and {size(machine.cache_free_bytes)} are free where "
            "the cache is. Use --cache-dir DIR on a larger disk, or --cache none."
        )
    for what, least, have in (
        ("Memory", cost.least_memory_bytes, machine.memory_bytes),
        ("GPU memory", cost.least_gpu_memory_bytes, machine.gpu_memory_bytes or cost.least_gpu_memory_bytes),
    ):
        if least > have:
            problems.append(
                f"{what}: weights, gradients and optimizer alone take {size(least)}, there are "
                f"{size(have)}. Use a smaller --arch or fewer workers a trial."
            )
    if problems:
        raise PlanError("\n".join(problems))
