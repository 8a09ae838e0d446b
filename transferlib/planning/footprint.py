"""What each arm's network takes: parameters, multiply-adds, and memory of a training process. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from transferlib.models.backbones import stage_names
from transferlib.models.sizes import (
    FLOPS_PER_MAC,
    REFERENCE_IMAGE_SIZE,
    counted,
    flops_per_image,
    stage_sizes,
    total_parameters,
    training_flops_per_image,
)
from transferlib.models.weight_names import NONE
from transferlib.planning.resources import Resources
from transferlib.spec import JobSpec
from transferlib.strategies import get_strategy

FLOAT_BYTES = 4
RAY_BYTES = 1_500_000_000
"""Ray's own processes and the job's."""
STREAM_BYTES = 500_000_000
"""Blocks of one trial's stream on their way."""
DATA_WORKER_BYTES = 400_000_000
"""A Ray Data task's process; about one a CPU."""
WORKER_BYTES = 900_000_000
"""A training process before it holds a model (torch, Ray)."""
SOURCES_KEPT = 4
"""Networks whose source weights a training process keeps for its later trials."""
MANIFEST_IMAGE_BYTES = 1_300
"""What an open manifest and the index of the decoded cache take of a process for each image.

Source: resident memory of a process that opened 100,000 and 400,000 images with paths of 60 characters: 1,007 bytes an
image for the manifest, 250 for the index.
"""
MANIFESTS_OF_JOB = 2
"""The job's own process holds the listing beside it, at a third of a manifest, and makes one from the other."""
NEAR_IMAGE_BYTES = 3_200
"""What the job's process holds for each image while near duplicates are looked for: its look (1,340: 32 x 32 of grey,
8 x 8 x 2 of colours, their objects), and at the peak of the search 1,860: the small pictures side by side, their
frequencies, eight places in the partition, and up to 16 finds.

Source: traced allocations of `find_near_duplicates`: 1,460 an image more from 9,000 to 18,000 images of which few are
alike, 1,860 from 4,500 to 9,000 on one background; and of the looks.
"""
FROZEN_ACTIVATIONS = 0.1
"""Share of the activations alive at once where no backward pass needs them."""


@dataclass(frozen=True)
class Footprint:
    """Give the size of one arm's training."""

    arm: str
    total_parameters: int
    trained_parameters: int
    optimizer_slots: int
    """Tensors that the optimizer keeps for each trained one."""
    train_macs: float
    """Multiply-adds of one image's training step."""
    evaluation_macs: float
    """Multiply-adds of one image's forward pass."""
    activation_bytes: float
    """What one image keeps for the backward pass."""

    @property
    def model_bytes(self) -> int:
        """Return what `best.safetensors` takes."""
        return FLOAT_BYTES * self.total_parameters

    @property
    def checkpoint_bytes(self) -> int:
        """Return what a checkpoint takes: the trained tensors and the optimizer's."""
        return FLOAT_BYTES * self.trained_parameters * (1 + self.optimizer_slots)

    @property
    def state_bytes(self) -> int:
        """Return what weights, gradients and optimizer take in memory."""
        return FLOAT_BYTES * (self.total_parameters + self.trained_parameters * (1 + self.optimizer_slots))

    def training_bytes(self, images: int) -> int:
        """Return what training takes in memory: the state and a step's activations.

        Args:
            images: In one worker's share of a step.
        """
        return self.state_bytes + int(self.activation_bytes * images)


def footprints(spec: JobSpec, num_classes: int) -> dict[str, Footprint]:
    """Return each arm's footprint by the arm's name, architectures first.

    Args:
        spec: Networks, strategies, image size, optimizer.
        num_classes: Outputs of the new head (K).
    """
    found = (
        _footprint(spec, architecture, strategy, num_classes)
        for architecture in spec.models.architectures
        for strategy in spec.strategies.names
    )
    return {footprint.arm: footprint for footprint in found}


def _footprint(spec: JobSpec, architecture: str, strategy: str, num_classes: int) -> Footprint:
    size = spec.data.image_size
    factors = get_strategy(strategy).stage_factors(stage_names(architecture), spec.strategies)
    stages = stage_sizes(architecture, num_classes, size)
    trained = [stage for stage, factor in factors.items() if factor > 0]
    trained_share = sum(stages[stage].macs for stage in trained) / sum(stage.macs for stage in stages.values())
    activations = counted(architecture).activation_bytes * (size / REFERENCE_IMAGE_SIZE) ** 2
    if spec.training.optimizer == "adamw":
        slots = 2
    else:
        slots = 1 if spec.training.momentum else 0
    train_flops = training_flops_per_image(architecture, factors, size, num_classes=num_classes)
    return Footprint(
        arm=f"{architecture}-{strategy}",
        total_parameters=sum(stage.parameters for stage in stages.values()),
        trained_parameters=sum(stages[stage].parameters for stage in trained),
        optimizer_slots=slots,
        train_macs=train_flops / FLOPS_PER_MAC,
        evaluation_macs=flops_per_image(architecture, size, num_classes=num_classes) / FLOPS_PER_MAC,
        activation_bytes=activations * max(trained_share, FROZEN_ACTIVATIONS),
    )


def worker_bytes(spec: JobSpec, num_classes: int, workers_per_trial: int, *, use_gpu: bool) -> tuple[int, int]:
    """Return what one training process of the largest arm takes of main memory and of its GPU, bytes.

    Of the images only a step's are counted; what grows with their number is the job's (`job_bytes`).

    Args:
        spec: Networks and batch size.
        num_classes: K.
        workers_per_trial: Workers that share a step.
        use_gpu: Whether the model is on a GPU; its memory is 0 otherwise.
    """
    images = -(-spec.training.global_batch_size // workers_per_trial)
    arms = footprints(spec, num_classes).values()
    held = WORKER_BYTES + source_bytes(spec, num_classes, workers_per_trial)
    if use_gpu:  # the model is built in main memory; on the GPU kernels need room, taken for one set of weights
        model = max(arm.model_bytes for arm in arms)
        return held + model, max(arm.training_bytes(images) + arm.model_bytes for arm in arms)
    return held + max(arm.training_bytes(images) for arm in arms), 0


def source_bytes(spec: JobSpec, num_classes: int, workers_per_trial: int) -> int:
    """Return what the source weights take that a training process keeps: those of its last networks.

    Args:
        spec: Networks, weights, strategies.
        num_classes: K; the head, which is not kept, is small beside the rest.
        workers_per_trial: Processes of a worker group serve one trial, and keep one network's.
    """
    if spec.models.weights == NONE or not any(get_strategy(name).uses_source for name in spec.strategies.names):
        return 0
    sizes = sorted((total_parameters(name, num_classes) for name in spec.models.architectures), reverse=True)
    return FLOAT_BYTES * sum(sizes[: SOURCES_KEPT if workers_per_trial == 1 else 1])


def job_bytes(spec: JobSpec, num_classes: int, num_images: int, resources: Resources) -> int:
    """Return the main memory of all of a job's processes, bytes.

    Args:
        spec: Networks and batch size.
        num_classes: K.
        num_images: In all splits; their manifest is open in each training process, Ray Data task and in the job's own.
        resources: Which processes there are.
    """
    one, _ = worker_bytes(spec, num_classes, resources.workers_per_trial, use_gpu=resources.use_gpu)
    num_workers = resources.concurrency * resources.workers_per_trial
    num_manifests = MANIFESTS_OF_JOB + resources.ray_cpus + num_workers
    return (
        RAY_BYTES
        + DATA_WORKER_BYTES * resources.ray_cpus
        + num_workers * (one + STREAM_BYTES)
        + num_manifests * num_images * MANIFEST_IMAGE_BYTES
        + (0 if spec.data.near_duplicates == "off" else num_images * NEAR_IMAGE_BYTES)
    )
