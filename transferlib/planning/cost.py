"""What a job will take: hours, disk, memory. Rough on purpose; the job corrects the hours after its first trial.

Loads no torch. Where a rate was measured, on what is said beside it. On a CPU a network
has a share of ResNet's speed (`backbones.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transferlib.models.backbones import get_backbone
from transferlib.models.sizes import REFERENCE_IMAGE_SIZE
from transferlib.planning.footprint import FLOAT_BYTES, Footprint, footprints, job_bytes, worker_bytes
from transferlib.planning.machine import Machine
from transferlib.planning.resources import Resources
from transferlib.records import JsonRecord, TrialSpec
from transferlib.spec import JobSpec

# ResNet-18, 224 px, batch 16, channels_last, whole network, 2 cores with AMX: 35 images/s in fp32, 68 in bf16.
CPU_MACS_PER_S = {"fp32": 95e9, "bf16": 185e9}
"""Multiply-adds a second and core."""
GPU_MACS_PER_S = 15e12
"""A guess for a data-centre GPU in bf16 at a batch of 32."""
SMALL_IMAGE_PIXELS = 64
SMALL_IMAGE_SPEED = 0.35
"""Share of the multiply-adds a second at 224 px that the same core reaches at 64 px."""
DATA_IMAGES_PER_S = 1500.0
"""Augmented images a second and core at 224 px, from the cache."""
DECODE_IMAGES_PER_S = 200.0
"""Files read, decoded and cached a second and core (photographs of half a megapixel)."""
START_S = 12.0
"""From Enter to the first trial."""
END_S = 10.0
"""From the last trial to the prompt: the test set in a process of its own, the report, Ray's stop."""
TRIAL_S = 2.0
"""What a further trial of one worker costs before its first step."""
GROUP_S = 30.0
"""The same of a trial with several workers: a worker group of its own."""
PHOTO_ASPECT = 4 / 3
CHECKPOINTS_KEPT = 4
"""The best, the last two, and the one being written."""
ROW_BYTES = 64
"""Of a predictions table, logits left out."""


@dataclass(frozen=True)
class Cost(JsonRecord):
    """Estimate what a job takes."""

    seconds: float
    """From Enter to the report."""
    cache_bytes: int
    """Decoded images that are not in the cache yet."""
    run_bytes: int
    """The run folder at its largest: models, checkpoints, predictions."""
    memory_bytes: int
    """Main memory, all processes."""
    gpu_memory_bytes: int
    """Of one GPU; 0 when training on CPU."""
    least_memory_bytes: int
    """Main memory without which no trial can run: weights, gradients, optimizer; 0 when training on GPUs."""
    least_gpu_memory_bytes: int
    """The same of one GPU; 0 when training on CPU."""


@dataclass(frozen=True)
class Demand:
    """Hold what a cost is estimated from."""

    spec: JobSpec
    trials: Sequence[TrialSpec]
    """That are trained; of seeds that go on with one rate, any one stands for it."""
    images: Mapping[str, int]
    """By split."""
    num_to_decode: int
    """Images that are not in the decoded cache."""
    num_classes: int
    resources: Resources
    machine: Machine


def estimate_cost(demand: Demand) -> Cost:
    """Estimate a job's cost.

    Args:
        demand: What is asked for, and on what.
    """
    spec, resources = demand.spec, demand.resources
    arms = footprints(spec, demand.num_classes)
    workers = resources.workers_per_trial
    _, gpu_bytes = worker_bytes(spec, demand.num_classes, workers, use_gpu=resources.use_gpu)
    state = max(arm.state_bytes for arm in arms.values())
    return Cost(
        seconds=_seconds(demand, arms),
        cache_bytes=_cache_bytes(spec, demand.num_to_decode),
        run_bytes=_run_bytes(demand, arms),
        memory_bytes=job_bytes(spec, demand.num_classes, sum(demand.images.values()), resources),
        gpu_memory_bytes=gpu_bytes,
        least_memory_bytes=0 if resources.use_gpu else state * workers,
        least_gpu_memory_bytes=state if resources.use_gpu else 0,
    )


def _cache_bytes(spec: JobSpec, num_to_decode: int) -> int:
    if spec.data.cache.mode == "none":
        return 0
    return round(num_to_decode * spec.short_side**2 * PHOTO_ASPECT * 3)


def _run_bytes(demand: Demand, arms: Mapping[str, Footprint]) -> int:
    """Return the run folder's peak: models that are kept or not chosen between yet, and running trials' checkpoints."""
    candidates = Counter((trial.arm, trial.seed, trial.fold) for trial in demand.trials)
    if demand.spec.output.keep == "all":
        models = sum(arms[trial.arm].model_bytes for trial in demand.trials)
    else:  # one an arm and seed, and all candidates of the seed that is being trained
        waiting = sum(arm.model_bytes for arm in arms.values()) * (max(candidates.values()) - 1)
        models = sum(arms[arm].model_bytes for arm, *_ in candidates) + waiting
    checkpoints = sorted((arms[trial.arm].checkpoint_bytes for trial in demand.trials), reverse=True)
    running = CHECKPOINTS_KEPT * sum(checkpoints[: demand.resources.concurrency])
    num_rows = demand.images["val"] * len(demand.trials) + demand.images["test"] * len(candidates)
    # Each trial's own predictions, and the merged table.
    return models + running + 2 * num_rows * (ROW_BYTES + FLOAT_BYTES * demand.num_classes)


def _seconds(demand: Demand, arms: Mapping[str, Footprint]) -> float:
    spec, resources = demand.spec, demand.resources
    train_images, val_images = demand.images["train"], demand.images["val"]
    cpus = min(resources.ray_cpus, demand.machine.cpus)
    area = (spec.data.image_size / REFERENCE_IMAGE_SIZE) ** 2
    speeds = {trial.arm: _macs_per_s(demand, cpus, trial.architecture) for trial in demand.trials}
    image_s = resources.concurrency * area / (DATA_IMAGES_PER_S * cpus)  # at the input pipeline's best
    start = TRIAL_S if resources.workers_per_trial == 1 else GROUP_S
    trial_s = {
        name: start
        + spec.training.epochs
        * (
            train_images * max(image_s, arms[name].train_macs / speed)
            + val_images * max(image_s, arms[name].evaluation_macs / speed)
        )
        for name, speed in speeds.items()
    }
    training = sum(trial_s[trial.arm] for trial in demand.trials) / resources.concurrency
    return START_S + END_S + demand.num_to_decode / (DECODE_IMAGES_PER_S * cpus) + training


def _macs_per_s(demand: Demand, cpus: int, architecture: str) -> float:
    """Return multiply-adds a second of one trial."""
    resources, size = demand.resources, demand.spec.data.image_size
    if resources.use_gpu:
        speed = GPU_MACS_PER_S * resources.workers_per_trial
    else:
        is_bf16 = demand.machine.has_bf16 and demand.spec.training.precision != "fp32"
        precision: Literal["fp32", "bf16"] = "bf16" if is_bf16 else "fp32"
        threads = resources.threads_per_worker * resources.workers_per_trial
        share = get_backbone(architecture).cpu_speed[precision]
        speed = CPU_MACS_PER_S[precision] * share * min(threads, cpus / resources.concurrency)
    smaller = max(0.0, (REFERENCE_IMAGE_SIZE - size) / (REFERENCE_IMAGE_SIZE - SMALL_IMAGE_PIXELS))
    return speed * (1 - (1 - SMALL_IMAGE_SPEED) * min(1.0, smaller))
