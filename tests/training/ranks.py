"""What each rank of a test's process group does; imported by processes that are started for it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from tests.training.doubles import StoppedWorker
from transferlib.strategies.freezing import TrainedStages
from transferlib.training import trial as trial_module
from transferlib.training.recorder import TrialRecorder
from transferlib.training.state import TrainingState
from transferlib.training.trial import TrialInputs, train_trial
from transferlib.training.worker import ProcessGroupWorker, Worker


class LossRecorder(TrialRecorder):
    """Keep the loss of every step."""

    def __init__(self, inputs: TrialInputs, device: torch.device) -> None:
        super().__init__(inputs, device)
        self.losses: list[float] = []

    def step_done(self, state: TrainingState, loss: float) -> None:
        self.losses.append(loss)
        (self._inputs.folder.path / "losses.json").write_text(json.dumps(self.losses))


class StoppedRank(ProcessGroupWorker):
    """Be asked to stop on the last rank only."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._asked = StoppedWorker(at)

    def should_stop(self) -> bool:
        return self._asked.should_stop() and self.rank == self.world_size - 1


def train_with_frozen_batchnorm(inputs: TrialInputs, worker: Worker) -> None:
    """Train everything but BatchNorm's statistics, which then depend on no rank's share, and keep each step's loss."""
    recorder, train_mode = trial_module.TrialRecorder, TrainedStages.set_train_mode

    def eval_mode(stages: TrainedStages, model: nn.Module) -> None:
        model.eval()

    trial_module.TrialRecorder, TrainedStages.set_train_mode = LossRecorder, eval_mode  # type: ignore[misc, method-assign]
    try:
        list(train_trial(inputs, worker))
    finally:
        trial_module.TrialRecorder, TrainedStages.set_train_mode = recorder, train_mode  # type: ignore[misc, method-assign]


def run_rank(rank: int, world_size: int, folder: Path, inputs: dict[str, TrialInputs]) -> None:
    """Train trials by name: with frozen BatchNorm, undisturbed, and stopped by the last rank and gone on with."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    if "curve" in inputs:
        train_with_frozen_batchnorm(inputs["curve"], ProcessGroupWorker())
    list(train_trial(inputs["whole"], ProcessGroupWorker()))
    stopped = inputs["stopped"]
    list(train_trial(stopped, StoppedRank(at=4)))
    seen = stopped.folder.read_result()
    (folder / f"stopped-{rank}.json").write_text(json.dumps(dataclasses.asdict(seen) if seen else None))
    list(train_trial(stopped, ProcessGroupWorker()))
    dist.destroy_process_group()
