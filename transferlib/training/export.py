"""What a finished trial leaves: the best epoch's whole network, and what it said of the validation images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import transferlib
from transferlib.errors import TrialError
from transferlib.evaluation.predictions import Predictions
from transferlib.models.skeleton import empty_model
from transferlib.runs import write_atomic
from transferlib.training.inputs import TrialInputs
from transferlib.training.network import Logits

SCHEMA = 1
"""Of the metadata of `best.safetensors`."""


def model_metadata(inputs: TrialInputs) -> dict[str, str]:
    """Return what someone needs to use a trial's model; values that are not text are JSON.

    Args:
        inputs: Of the trial.
    """
    data = inputs.job.data
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
    }


def write_model(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a whole state dict, under torchvision's names, by rename.

    Args:
        path: `best.safetensors`.
        state: Any device and memory format.
        metadata: As `model_metadata`.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    write_atomic(path, save_tensors(tensors, dict(metadata)))


@dataclass(frozen=True)
class SavedModel:
    """Hold what `write_model` wrote."""

    model: nn.Module
    """On the CPU, in evaluation mode."""
    metadata: dict[str, str]


def load_model(path: Path) -> SavedModel:
    """Read `best.safetensors` into a plain torchvision model.

    Raises:
        TrialError: It is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata()
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        model = empty_model(metadata["architecture"], len(json.loads(metadata["classes"])))
        model.load_state_dict(state, strict=True, assign=True)
    except Exception as error:
        raise TrialError(f"{path} cannot be used: {error}. Train this trial again.") from error
    return SavedModel(model.eval(), metadata)


def save_predictions(inputs: TrialInputs, split: str, logits: Logits) -> Path:
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
        arm=trial.arm,
        seed=trial.seed,
        candidate=trial.candidate,
        split=split,
        image_ids=[images.image_ids[row] for row in rows],
        labels=images.labels[rows],
        logits=logits,
        classes=images.classes,
    )
    predictions.check_complete(images, split)
    path = inputs.folder.predictions(split)
    predictions.save(path)
    return path


def contiguous(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model on a device, in the memory format that it computes fastest in."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
