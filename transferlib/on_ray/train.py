"""Ray Train runs a trial of several workers under DDP; our own store, not Ray's, holds its checkpoints."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from transferlib.on_ray.ending import ended_by_its_own_error
from transferlib.on_ray.interfaces import NodeTorchConfig
from transferlib.on_ray.mirroring import rank_mirror
from transferlib.on_ray.opening import logged_to, open_trial
from transferlib.on_ray.settled import load_plan
from transferlib.records import EpochRecord, TrialSpec
from transferlib.runs import RunFolder
from transferlib.training.trial import train_trial
from transferlib.training.worker import ProcessGroupWorker

logger = logging.getLogger(__name__)

MAX_RESTARTS = 3
COLLECTIVE_TIMEOUT_S = 300
"""A rank that freezes is taken for dead after this long (Ray's own default is half an hour)."""


class RayWorker(ProcessGroupWorker):
    """Be one rank of a Ray Train worker group."""

    def __init__(self, stop_flag: Path) -> None:
        device = ray.train.torch.get_device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        super().__init__(device, stop_flag)

    def report(self, record: EpochRecord) -> None:
        """Show the epoch to Ray Train, without a checkpoint: the run folder has it already."""
        ray.train.report({"epoch": record.epoch, "val_accuracy": record.val_accuracy, "train_loss": record.train_loss})


def _train_worker(config: dict[str, Any]) -> None:
    run, trial = RunFolder(Path(config["run"])), TrialSpec.from_json(config["trial"])
    worker = RayWorker(run.stop_flag)
    suffix = "" if worker.rank == 0 else f".rank{worker.rank}"
    with (
        rank_mirror(run, trial.trial_id, worker),
        logged_to(run.log / f"{trial.trial_id}{suffix}.log"),
        ended_by_its_own_error(run, trial),
    ):
        logger.info("%s, rank %d of %d, in process %d", trial.trial_id, worker.rank, worker.world_size, os.getpid())
        for _ in train_trial(open_trial(run, trial), worker):
            pass


def train_in_worker_group(run: RunFolder, trial: TrialSpec) -> None:
    """Train a trial to its end; a group that loses a worker is started again and goes on from our checkpoint.

    Args:
        run: The trial's run.
        trial: Which one.
    """
    plan = load_plan(run.path)
    scratch = tempfile.mkdtemp(prefix="train-")
    try:
        trainer = ray.train.torch.TorchTrainer(
            _train_worker,
            train_loop_config={"run": str(run.path), "trial": trial.to_json()},
            torch_config=NodeTorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
            scaling_config=ray.train.ScalingConfig(
                num_workers=plan.workers_per_trial,
                use_gpu=plan.use_gpu,
                resources_per_worker={"CPU": plan.cpus_per_worker, **({"GPU": 1} if plan.use_gpu else {})},
            ),
            run_config=ray.train.RunConfig(
                name=f"{trial.trial_id}-{os.getpid()}",
                storage_path=scratch,
                failure_config=ray.train.FailureConfig(max_failures=MAX_RESTARTS),
            ),
        )
        trainer.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
