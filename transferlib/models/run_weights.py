"""Find the model of a previous run that can serve as source weights. Loads no torch."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from transferlib.errors import WeightsError
from transferlib.records import TrialKey, TrialResult
from transferlib.runs import RunFolder, TrialFolder, read_object


@dataclass(frozen=True)
class RunModel:
    """Name one trial's model."""

    path: Path
    """Its best.safetensors."""
    origin: str
    """Which trial of which run it is, and why that one."""
    notes: tuple[str, ...]


def find_run_model(folder: Path, architecture: str) -> RunModel:
    """Return the run's model of an architecture: the best on validation of those that were kept.

    That is the model the run hands over, where it is of this architecture; else the best of what was kept, by what each
    trial knew of itself: the comparison's metric, then the lower validation loss, fewer parameters, the smaller rate.

    Args:
        folder: A run folder, or one trial's folder in it.
        architecture: torchvision's name.

    Raises:
        WeightsError: No finished model of this architecture is there; the text says what is. Or it is damaged.

    Source: CONTRACT, Choosing.
    """
    if (folder / "best.safetensors").is_file():
        _refuse_damaged(TrialFolder(folder))
        return RunModel(folder / "best.safetensors", f"{folder.parent.parent.name}/{folder.name}", ())
    run = RunFolder(folder)
    if not (folder / "trials").is_dir():
        raise WeightsError(f"--weights {folder}: not a run folder (it has no trials/). Give runs/<id>, or a file.")
    trials = [TrialFolder(path) for path in sorted((folder / "trials").iterdir()) if path.is_dir()]
    results = [(result, trial) for trial in trials if (result := trial.read_result()) and result.state == "done"]
    kept = [(result, trial) for result, trial in results if trial.best.is_file()]
    fitting = [(result, trial) for result, trial in kept if result.architecture == architecture]
    if not fitting:
        there = ", ".join(sorted({result.architecture for result, _ in kept})) or "none"
        raise WeightsError(
            f"--weights {folder}: the run has no finished model of {architecture}. Finished and kept: {there}. "
            f"Give --arch accordingly, or finish the run first (--resume {run.run_id})."
        )
    handed = (read_object(run.choice) or {}).get("model")
    best, trial = min(fitting, key=lambda pair: (pair[0].trial_id != handed, *_selection_key(pair[0])))
    _refuse_damaged(trial)
    chosen_of = f" of {len(fitting)}" if len(fitting) > 1 else ""
    origin = f"{run.run_id}/{best.trial_id} (best{chosen_of} on validation, accuracy {best.val_accuracy:.3f})"
    notes = () if run.choice.is_file() else (f"{run.run_id} did not finish: the best of what it has was taken.",)
    return RunModel(trial.best, origin, notes)


def _refuse_damaged(trial: TrialFolder) -> None:
    if trial.best in trial.damaged_files():
        run = trial.path.parent.parent
        raise WeightsError(
            f"--weights: {trial.best} is damaged: it is not what its trial wrote (another sha256). Bring it back "
            f"from a copy, or train it again: submit compare --resume {shlex.quote(str(run))}"
        )


def _selection_key(result: TrialResult) -> tuple[float, float, int, float, TrialKey]:
    """Return the order of `comparison.choose`, by what a trial knew of itself."""
    return (-result.score, result.val_loss, result.total_parameters, result.lr, result.key)
