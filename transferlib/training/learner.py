"""What learns: the network, its optimizer and all that one step needs. Knows nothing of epochs, files or processes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from transferlib.data.batches import Batch
from transferlib.data.schedule import Schedule, StepShare
from transferlib.models.zoo import build_model
from transferlib.strategies.freezing import TrainedStages, apply_strategy
from transferlib.training.inputs import TrialInputs
from transferlib.training.loss import TrainingLoss, class_weights
from transferlib.training.lr_schedule import LrSchedule
from transferlib.training.network import Network
from transferlib.training.normaliser import Normaliser
from transferlib.training.optimizer import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_rates,
    trained_parameters,
)
from transferlib.training.pooling import make_pooling_deterministic
from transferlib.training.precision import resolve_precision
from transferlib.training.worker import Worker


@dataclass(frozen=True)
class Learner:
    """Take one step at a time."""

    network: Network
    """Around the plain torchvision model."""
    parallel_network: Network
    """Around the same model as the worker prepared it: its backward averages gradients over ranks."""
    stages: TrainedStages
    """Which stages are trained."""
    optimizer: torch.optim.Optimizer
    """Over the trained parameters."""
    lr_schedule: LrSchedule
    """Scales the optimizer's peak rates."""
    peak_lr: float
    """The head's."""
    num_steps: int
    """Train steps of an epoch."""
    loss: TrainingLoss
    """Of training."""
    clip_norm: float
    """Largest global gradient norm; 0: no clipping."""
    seed: int
    """Keys Dropout and StochasticDepth."""

    @property
    def model(self) -> nn.Module:
        """Return the plain torchvision model."""
        return self.network.model

    def train_step(self, batch: Batch, rank: int, world_size: int) -> Tensor:
        """Take one optimizer step; return the summed loss over this rank's images, scalar, on the device.

        The sum is scaled by world_size / images of the global step, so that the mean of the ranks' gradients is the
        gradient of the mean over all images, however many of them each rank has.
        """
        share = batch.share
        set_rates(self.optimizer, self._lr_factor(share.epoch, share.step))
        torch.manual_seed(dropout_key(self.seed, share, rank))
        labels = self.network.normaliser.to_device(batch.labels)
        loss_sum = self.loss.loss_sum(self.parallel_network.logits(batch), labels)
        self.optimizer.zero_grad(set_to_none=True)
        (loss_sum * (world_size / share.step_images)).backward()  # type: ignore[no-untyped-call]
        if self.clip_norm > 0.0:
            nn.utils.clip_grad_norm_(trained_parameters(self.optimizer), self.clip_norm)
        self.optimizer.step()
        return loss_sum.detach()

    def head_lr(self, epoch: int, step: int) -> float:
        """Return the head's rate at a train step of an epoch."""
        return self.peak_lr * self._lr_factor(epoch, step)

    def _lr_factor(self, epoch: int, step: int) -> float:
        return self.lr_schedule.factor(epoch * self.num_steps + step)

    def train_mode(self) -> None:
        """Put trained stages in train mode; frozen ones stay in evaluation mode, BatchNorm and what drops included."""
        self.stages.set_train_mode(self.model)

    def eval_mode(self) -> None:
        """Put the whole network in evaluation mode."""
        self.model.eval()

    def changing_buffers(self) -> list[Tensor]:
        """Return the float buffers that training changes: running statistics of trained stages."""
        changing = set(self.stages.trained_state_keys(self.model))
        return [b for name, b in self.model.named_buffers() if name in changing and b.is_floating_point()]

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return what training changes, by checkpoint file: `model` and `optimizer`."""
        state = self.model.state_dict()
        return {
            "model": {key: state[key] for key in self.stages.trained_state_keys(self.model)},
            "optimizer": optimizer_tensors(self.optimizer, self.model),
        }

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Set what training changes to what `tensors` returned."""
        self.load_weights(tensors["model"])
        load_optimizer_tensors(self.optimizer, self.model, tensors["optimizer"])

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set the trained stages' tensors, in place, to those of a checkpoint's `model` file."""
        state = self.model.state_dict()
        for key in self.stages.trained_state_keys(self.model):
            state[key].copy_(weights[key])


def build_learner(inputs: TrialInputs, worker: Worker, schedule: Schedule) -> Learner:
    """Build a trial's network from its source, and a new optimizer over what its strategy trains."""
    trial, training, images = inputs.trial, inputs.job.training, inputs.images
    num_classes = len(images.classes)
    model = build_model(trial.architecture, num_classes, source=inputs.used_source, seed=trial.seed)
    model = model.to(worker.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if worker.device.type == "cuda":
        make_pooling_deterministic(model)
    stages = apply_strategy(model, trial.architecture, inputs.stage_factors())
    groups = stages.parameter_groups(model, trial.lr, training.weight_decay)
    # Before the network is looked at: layers may be replaced.
    parallel = worker.prepare_model(model, sync_batchnorm=training.sync_batchnorm)
    precision = resolve_precision(training.precision, worker.device)
    network = Network(model, Normaliser(inputs.mean, inputs.std, worker.device), precision, worker.device)
    weights = class_weights(training.class_weights, images.labels[images.rows("train")], num_classes, worker.device)
    return Learner(
        network=network,
        parallel_network=replace(network, model=parallel),
        stages=stages,
        optimizer=build_optimizer(groups, training),
        lr_schedule=LrSchedule.from_epochs(training.epochs, training.warmup_epochs, schedule.num_train_steps),
        peak_lr=trial.lr,
        num_steps=schedule.num_train_steps,
        loss=TrainingLoss(weights, training.label_smoothing),
        clip_norm=training.gradient_clip_norm,
        seed=trial.seed,
    )


def dropout_key(seed: int, share: StepShare, rank: int) -> int:
    """Return the seed of what one rank drops at one step: exact after a restart, another on each rank.

    Dropout and StochasticDepth draw from torch's global generator, for each image anew: what they drop depends on the
    number of workers, and on nothing that ran before the step.

    Args:
        seed: The trial's.
        share: Names epoch and step.
        rank: Of the worker.
    """
    digest = hashlib.sha256(f"dropout:{seed}:{share.epoch}:{share.step}:{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
