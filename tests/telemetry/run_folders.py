"""A run folder as a job leaves it while it runs, without training: spec, plan and what trials say of themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from transferlib.planning.cost import Cost
from transferlib.planning.plan import Plan, plan_trials
from transferlib.records import PhaseTotals, TrialProgress, TrialResult, TrialSpec, TrialState, TrialTotals
from transferlib.runs import RunFolder
from transferlib.spec import JobSpec

RUN_ID = "20261125-014503-compare-3fa9"
EPOCHS = 4


def begin_run(
    folder: Path, *, seeds: int = 1, candidates: int = 1, tuning_seeds: int | None = None
) -> tuple[RunFolder, Plan]:
    """Write spec and plan of a comparison of two arms into a new run folder."""
    run = RunFolder(folder / RUN_ID)
    (run.path / "trials").mkdir(parents=True)
    run.log.mkdir()
    spec = JobSpec.from_mapping(
        {
            "data": {"path": str(folder), "image_size": 32, "cache": {"dir": str(folder / "cache" / "not-made-yet")}},
            "models": {"architectures": ["resnet18"], "weights": "none"},
            "strategies": {"names": ["feature_extraction", "full"]},
            "training": {"epochs": EPOCHS},
            "comparison": {"seeds": seeds, "lr_candidates": candidates, "tuning_seeds": tuning_seeds},
        }
    )
    run.spec.write_text(spec.to_yaml())
    plan = Plan(
        trials=plan_trials(spec),
        workers_per_trial=1,
        use_gpu=False,
        gpus=0,
        cpus_per_worker=1.0,
        ray_cpus=2,
        threads_per_worker=1,
        concurrency=1,
        images={"train": 41, "val": 13, "test": 11},
        num_classes=2,
        epochs=EPOCHS,
        cost=Cost(**dict.fromkeys(Cost.__dataclass_fields__, 0)),  # type: ignore[arg-type]
        tuning_seeds=tuning_seeds,
    )
    run.plan.write_text(plan.to_json())
    return run, plan


def progress_of(trial: TrialSpec, state: TrialState = "running", *, at: float = 100.0, **fields: Any) -> TrialProgress:
    """Return what a trial says of itself after an epoch and a half."""
    progress = TrialProgress(
        trial_id=trial.trial_id,
        state=state,
        epoch=1,
        num_epochs=EPOCHS,
        step=3,
        num_steps=6,
        images_per_s=50.0,
        data_wait_share=0.1,
        loss=0.5,
        val_accuracy=[0.75],
        started_at=10.0,
        updated_at=at,
        totals=TrialTotals(PhaseTotals(62, 9, 2.0, 0.5), PhaseTotals(13, 1, 0.25, 0.125), 3, 0.0625, 4096),
        stage_lrs={"stem": 0.0, "head": 0.01},
        val_loss=0.625,
        memory_bytes=1 << 20,
    )
    return replace(progress, **fields)


def show(run: RunFolder, trial: TrialSpec, state: TrialState = "running", **fields: Any) -> None:
    """Write a trial's progress."""
    folder = run.trial(trial.trial_id)
    folder.path.mkdir(exist_ok=True)
    # By rename, as the recorder does: a new file each time, however coarse the file system's clock is.
    temporary = folder.path / "progress.tmp"
    temporary.write_text(progress_of(trial, state, **fields).to_json() + "\n")
    temporary.replace(folder.progress)


def end(run: RunFolder, trial: TrialSpec, state: TrialState = "done", **fields: Any) -> None:
    """Write a trial's result."""
    result = TrialResult(trial.key, trial.lr, state, **fields)
    run.trial(trial.trial_id).path.mkdir(exist_ok=True)
    run.trial(trial.trial_id).result.write_text(result.to_json() + "\n")
