"""What each rank of a test's process group does; imported by processes that are started for it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
import torch.distributed as dist

from tests.training.doubles import StoppedWorker
from tests.training.small_networks import NETWORKS, train_steps
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


def train_with_losses(inputs: TrialInputs, worker: Worker) -> None:
    """Train a trial and keep each step's loss."""
    recorder = trial_module.TrialRecorder
    trial_module.TrialRecorder = LossRecorder  # type: ignore[misc]
    try:
        list(train_trial(inputs, worker))
    finally:
        trial_module.TrialRecorder = recorder  # type: ignore[misc]


def save_small_networks(folder: Path, worker: Worker) -> None:
    """Train small networks in float64; keep each with its losses."""
    torch.set_num_threads(1)
    for name in NETWORKS:
        model, losses = train_steps(worker, name)
        torch.save((model.state_dict(), losses), folder / f"{name}-{worker.rank}.pt")


def train_small_networks(rank: int, world_size: int, folder: Path, device: str) -> None:
    """Do only that, on a device."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    save_small_networks(folder, ProcessGroupWorker(device))
    dist.destroy_process_group()


def run_rank(rank: int, world_size: int, folder: Path, inputs: dict[str, TrialInputs]) -> None:
    """Train small networks in float64; trials by name: undisturbed, and stopped by the last rank and gone on with."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    save_small_networks(folder, ProcessGroupWorker())
    if "curve" in inputs:
        train_with_losses(inputs["curve"], ProcessGroupWorker())
    list(train_trial(inputs["whole"], ProcessGroupWorker()))
    stopped = inputs["stopped"]
    list(train_trial(stopped, StoppedRank(at=4)))
    seen = stopped.folder.read_result()
    (folder / f"stopped-{rank}.json").write_text(json.dumps(dataclasses.asdict(seen) if seen else None))
    list(train_trial(stopped, ProcessGroupWorker()))
    dist.destroy_process_group()
