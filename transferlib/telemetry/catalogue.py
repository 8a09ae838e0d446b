"""Every exported series: name, kind, unit, labels and help. What is not here is not exported.

Counters are sums over the life of a trial, over all its starts, never ratios: Prometheus divides. Labels are bounded by
the plan; no file and no class of the user's is ever one. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "transferlib_"
JOB_STATES = ("preparing", "running", "evaluating", "done", "failed", "stopped")
"""Values of `state` in `transferlib_job_state`; those of `status.json`."""
TRIAL_STATES = ("pending", "running", "done", "failed", "stopped")
"""Values of `state` in `transferlib_trials`; spared trials are none that train."""
PHASES = ("train", "val")
"""Values of `phase`. The test set is read after a trial's end, when its series are gone."""

# `seed` is "3"; where there are folds "3-f2", so that no two trials have the same labels.
_TRIAL = ("run", "arm", "seed", "candidate")
_PHASE = (*_TRIAL, "phase")
_ARM = ("run", "arm")


@dataclass(frozen=True)
class Series:
    """Describe one exported series."""

    name: str
    """As Prometheus spells it: a counter's ends in `_total`, an info's in `_info`."""
    kind: Literal["counter", "gauge", "info"]
    unit: str
    """Base unit: seconds, bytes, images, ...; "" for what has none."""
    labels: tuple[str, ...]
    help: str


def _series(
    name: str, kind: Literal["counter", "gauge", "info"], unit: str, labels: tuple[str, ...], text: str
) -> Series:
    return Series(PREFIX + name, kind, unit, labels, text)


CATALOGUE: tuple[Series, ...] = (
    _series("job_info", "info", "", ("run", "verb"), "The job: 1."),
    _series("arm_info", "info", "", (*_ARM, "architecture", "strategy"), "What an arm's name stands for: 1."),
    _series(
        "images_total",
        "counter",
        "images",
        _PHASE,
        "Images that went through the network, over all ranks. Work done: what a lost process had done since its last "
        "checkpoint is counted again when it is done again (transferlib_steps_redone_total says how much); what it did "
        "in its last half second (two where its disk is slow) may be missing.",
    ),
    _series(
        "steps_total",
        "counter",
        "steps",
        _PHASE,
        "Steps taken: work done, as in transferlib_images_total. Those of phase train, less "
        "transferlib_steps_redone_total, are the steps that the trial's weights have behind them.",
    ),
    _series(
        "steps_redone_total",
        "counter",
        "steps",
        _TRIAL,
        "Training steps that a killed process took after its last checkpoint, and that are therefore taken again; "
        "counted when the trial goes on.",
    ),
    _series(
        "step_seconds_total",
        "counter",
        "seconds",
        _PHASE,
        "Wall seconds of steps, waiting for data included, checkpoints not.",
    ),
    _series(
        "data_wait_seconds_total",
        "counter",
        "seconds",
        _PHASE,
        "Seconds of transferlib_step_seconds_total in which rank 0 waited for its next batch.",
    ),
    _series("checkpoint_seconds_total", "counter", "seconds", _TRIAL, "Wall seconds spent writing checkpoints."),
    _series("checkpoint_bytes_total", "counter", "bytes", _TRIAL, "Bytes of the tensors written to checkpoints."),
    _series(
        "loss",
        "gauge",
        "nat",
        _TRIAL,
        "Mean training loss of the newest step that was shown; at an epoch's end, of the epoch. Absent before a step.",
    ),
    _series(
        "learning_rate", "gauge", "", (*_TRIAL, "stage"), "Rate of each stage at the newest step; 0 where it is frozen."
    ),
    _series(
        "validation_accuracy", "gauge", "ratio", _TRIAL, "After the newest finished epoch, 0 to 1. Absent before one."
    ),
    _series("validation_loss", "gauge", "nat", _TRIAL, "After the newest finished epoch. Absent before one."),
    _series("epoch", "gauge", "epochs", _TRIAL, "Epochs finished."),
    _series(
        "memory_bytes",
        "gauge",
        "bytes",
        _TRIAL,
        "Resident memory of rank 0's process now; what the trials before it left there is included.",
    ),
    _series(
        "gpu_memory_bytes",
        "gauge",
        "bytes",
        _TRIAL,
        "GPU memory that rank 0's process holds now (torch's allocator, cached blocks included). Absent without a GPU.",
    ),
    _series(
        "gpu_utilisation_ratio",
        "gauge",
        "ratio",
        _TRIAL,
        "Share of the last moments in which rank 0's GPU ran a kernel, 0 to 1, from NVML. Absent where NVML does not "
        "tell: without a GPU, on parts of one (MIG).",
    ),
    _series(
        "trials",
        "gauge",
        "trials",
        ("run", "state"),
        "Trials of the plan by state, those not begun included. A seed that goes on with one rate has one.",
    ),
    _series(
        "best_validation_accuracy",
        "gauge",
        "ratio",
        _ARM,
        "Best of all epochs of all trials of the arm so far. Absent before the first epoch.",
    ),
    _series(
        "budget_left_epochs",
        "gauge",
        "epochs",
        _ARM,
        "Epochs that the arm's trials have not used yet; a trial that ended, early or not, has none left.",
    ),
    _series(
        "images_used", "gauge", "images", ("run",), "Images that the splits are made of. Absent before they are read."
    ),
    _series(
        "images_skipped",
        "gauge",
        "images",
        ("run",),
        "Files that somebody may have meant as an image and that cannot serve as one. Absent before they are read.",
    ),
    _series("trials_not_finite", "gauge", "trials", _ARM, "Trials that failed because their loss was not finite."),
    _series(
        "trial_restarts_total",
        "counter",
        "starts",
        _ARM,
        "Starts of a trial that had been started before: its process was lost, or its job was stopped and resumed.",
    ),
    _series(
        "last_progress_timestamp_seconds",
        "gauge",
        "seconds",
        ("run",),
        "Unix time at which the job or one of its trials last said where it stands.",
    ),
    _series(
        "disk_free_bytes",
        "gauge",
        "bytes",
        ("run", "place"),
        "Bytes that this user may still write, on the node of the job's own process.",
    ),
    _series("job_state", "gauge", "", ("run", "state"), "1 for the state that the job is in, 0 for the others."),
)
