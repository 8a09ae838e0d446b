"""On a GPU: the same bits twice, and after a stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from tests.training.doubles import StoppedWorker
from transferlib.records import TrialKey, TrialSpec
from transferlib.training.trial import TrialInputs, train_trial
from transferlib.training.vitals import VitalSigns
from transferlib.training.worker import LocalWorker


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("architecture", ["resnet18", "vgg11"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_trial_on_a_gpu_ends_in_the_same_bits(
    make_inputs: Callable[..., TrialInputs], architecture: str, precision: str
) -> None:
    results = []
    for name in ("whole", "stopped"):
        inputs = make_inputs(name, strategy="scratch", epochs=2, precision=precision)
        trial = TrialSpec(TrialKey(architecture, "scratch", 0, 5, 0), 1e-3)
        inputs = dataclasses.replace(inputs, trial=trial, source=None)
        if name == "stopped":
            stopped = StoppedWorker(at=3)
            stopped.device = torch.device("cuda")
            list(train_trial(inputs, stopped))
        list(train_trial(inputs, LocalWorker("cuda")))
        results.append(inputs.folder.read_result())
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].state == results[1].state == "done"
    assert results[0].weights_sha256 == results[1].weights_sha256


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_says_what_it_holds_and_how_busy_it_is() -> None:
    device = torch.device("cuda:0")
    held = torch.zeros(1 << 20, device=device)
    vitals = VitalSigns(device).read()
    assert vitals.gpu_memory_bytes is not None
    assert vitals.gpu_memory_bytes >= held.nbytes
    assert vitals.gpu_utilisation is None or 0.0 <= vitals.gpu_utilisation <= 1.0
