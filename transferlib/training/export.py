"""What a finished trial leaves: the best epoch's whole network, and what it said of the validation images."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import transferlib
from transferlib.data.depth_scale import DepthScale
from transferlib.errors import TrialError
from transferlib.evaluation.predictions import Predictions
from transferlib.models.stages import empty_model
from transferlib.models.weights import RGB
from transferlib.training.inputs import TrialInputs
from transferlib.training.network import Logits

SCHEMA = 1
"""Of the metadata of `best.safetensors`."""


def model_metadata(inputs: TrialInputs) -> dict[str, str]:
    """Return what someone needs to use a trial's model; values that are not text are JSON.

    Args:
        inputs: Of the trial.
    """
    data, scale = inputs.job.data, inputs.images.scale
    return {
        "schema": str(SCHEMA),
        "architecture": inputs.trial.architecture,
        "classes": json.dumps(list(inputs.images.classes)),
        "image_size": str(data.image_size),
        "resize": str(inputs.job.short_side),
        "mean": json.dumps(inputs.mean),
        "std": json.dumps(inputs.std),
        "source_sha256": inputs.source_sha256,
        "version": transferlib.__version__,
        "run": inputs.run_id,
        "trial": inputs.trial.trial_id,
        **({} if scale is None else {"depth_range": json.dumps(scale.to_plain())}),
    }


def write_model(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a whole state dict, under torchvision's names, by rename.

    Args:
        path: `best.safetensors`.
        state: Any device and memory format.
        metadata: As `model_metadata`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()  # with the mode that this user's files get
        mode = temporary.stat().st_mode
        save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, temporary, dict(metadata))
        temporary.chmod(mode & 0o777)  # safetensors makes it readable by its owner alone
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class SavedModel:
    """Hold what a trial left in `best.safetensors`."""

    model: nn.Module
    """Plain torchvision, on the CPU, in evaluation mode."""
    mean: RGB
    """What its images are normalised with: channel means of values 0 to 1."""
    std: RGB
    """Channel standard deviations of values 0 to 1."""
    scale: DepthScale | None
    """What its deep images are scaled by; None: it has seen none, or an older version did not say."""


def load_model(path: Path, classes: Sequence[str]) -> SavedModel:
    """Read `best.safetensors` into a plain torchvision model.

    Args:
        path: The file.
        classes: Names that its outputs must have, in order.

    Raises:
        TrialError: It is missing, damaged or of other classes.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata()
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        known_classes = json.loads(metadata["classes"])
        model = empty_model(metadata["architecture"], len(known_classes))
        model.load_state_dict(state, strict=True, assign=True)
        mean, std = json.loads(metadata["mean"]), json.loads(metadata["std"])
        scale = DepthScale.from_plain(json.loads(metadata.get("depth_range", "null")))
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        again = "Remove result.json beside it, and `--resume` trains this trial again."
        raise TrialError(f"{path} cannot be used: {error}. {again}") from error
    if known_classes != list(classes):
        raise TrialError(f"{path} knows the classes {known_classes}; the manifest has {list(classes)}.")
    return SavedModel(model.eval(), tuple(mean), tuple(std), scale)


def save_predictions(inputs: TrialInputs, split: str, logits: Logits) -> None:
    """Write a trial's predictions on a split, checked against the manifest.

    Args:
        inputs: Of the trial.
        split: train, val or test.
        logits: Of the split's images in row order, float32 [N, K].

    Raises:
        DataError: They are not exactly the manifest's images.
    """
    images, trial = inputs.images, inputs.trial
    rows = images.rows(split)
    predictions = Predictions.from_arrays(
        run=inputs.run_id,
        key=trial.key,
        split=split,
        image_ids=[images.image_ids[row] for row in rows],
        labels=images.labels[rows],
        logits=logits,
        classes=images.classes,
    )
    predictions.check_complete(images, split)
    predictions.save(inputs.folder.predictions(split))
