"""Ray Train runs a trial of several workers under DDP; our own store, not Ray's, holds its checkpoints."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from transferlib.on_ray.ending import ended_by_its_own_error
from transferlib.on_ray.interfaces import NodeTorchConfig
from transferlib.on_ray.mirroring import ended_when_superseded, rank_mirror
from transferlib.on_ray.opening import logged_to, open_trial
from transferlib.on_ray.settled import load_plan
from transferlib.on_ray.waiting import wait_for_call
from transferlib.records import EpochRecord, TrialSpec
from transferlib.runs import RunFolder
from transferlib.training.trial import train_trial
from transferlib.training.worker import ProcessGroupWorker, StopFlag

logger = logging.getLogger(__name__)

MAX_RESTARTS = 3
COLLECTIVE_TIMEOUT_S = 300
"""A rank that freezes is taken for dead after this long (Ray's own default is half an hour)."""


class RayWorker(ProcessGroupWorker):
    """Be one rank of a Ray Train worker group."""

    def __init__(self) -> None:
        device = ray.train.torch.get_device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        super().__init__(device)

    def obey(self, stop_flag: Path) -> None:
        """Stop when a file appears, of which no process knows before it knows its rank.

        Args:
            stop_flag: The file.
        """
        self._stop_flag = StopFlag(stop_flag)

    def report(self, record: EpochRecord) -> None:
        """Show the epoch to Ray Train, without a checkpoint: the run folder has it already."""
        ray.train.report({"epoch": record.epoch, "val_accuracy": record.val_accuracy, "train_loss": record.train_loss})


def _train_worker(config: dict[str, Any]) -> None:
    run, trial = RunFolder(Path(config["run"])), TrialSpec.from_json(config["trial"])
    worker = RayWorker()
    suffix = "" if worker.rank == 0 else f".rank{worker.rank}"
    with (
        ended_when_superseded(),
        rank_mirror(run, trial.trial_id, worker) as stop_flag,
        logged_to(run.log / f"{trial.trial_id}{suffix}.log"),
        ended_by_its_own_error(run, trial),
    ):
        worker.obey(stop_flag)
        logger.info("%s, rank %d of %d, in process %d", trial.trial_id, worker.rank, worker.world_size, os.getpid())
        for _ in train_trial(open_trial(run, trial), worker):
            pass


class _NotBegunError(Exception):
    """Say that the run is stopped and no worker trains."""


class _SayBegun(WorkerGroupCallback):
    """Keep a file while a worker group trains. Ray Train calls it on the node where it was made.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        self._path.unlink(missing_ok=True)

    def after_worker_group_start(self, worker_group: Any) -> None:
        self._path.touch()


def train_in_worker_group(run: RunFolder, trial: TrialSpec) -> None:
    """Train a trial to its end; a group that loses a worker is started again and goes on from our checkpoint.

    Workers that train end by the run's stop flag themselves. A group that still waits for its resources is left behind,
    for this process to take with it.

    Args:
        run: The trial's run.
        trial: Which one.
    """
    plan = load_plan(run.path)
    scratch = tempfile.mkdtemp(prefix="train-")
    begun = Path(scratch) / "begun"
    callbacks: list[Any] = [_SayBegun(begun)]  # Ray's type knows users' callbacks only, Ray itself takes both

    def look() -> None:
        if run.stop_flag.exists() and not begun.exists():
            raise _NotBegunError

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
                callbacks=callbacks,
            ),
        )
        with suppress(_NotBegunError):
            wait_for_call(trainer.fit, look)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
