"""On a GPU: the same bits twice, and after a stop."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from tests.training.doubles import StoppedWorker
from tests.training.ranks import train_small_networks
from tests.training.small_networks import NETWORKS, largest_difference, train_steps
from transferlib.names import BEYOND_VGG_AND_RESNET
from transferlib.records import TrialKey, TrialSpec
from transferlib.training.trial import TrialInputs, train_trial
from transferlib.training.vitals import VitalSigns
from transferlib.training.worker import LocalWorker

REPO = Path(__file__).parents[2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("architecture", ["resnet18", "vgg11", *BEYOND_VGG_AND_RESNET])
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
def test_peak_memory_is_forgotten_in_a_process_that_has_not_touched_its_gpu() -> None:
    code = (
        "import torch; from transferlib.training import memory\n"
        "device = torch.device('cuda:0')\n"
        "memory.reset_peak_memory(device)\n"
        "print(memory.peak_memory_bytes(device))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert (answer.stdout, answer.returncode) == ("0\n", 0), answer.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_says_what_it_holds_and_how_busy_it_is() -> None:
    device = torch.device("cuda:0")
    held = torch.zeros(1 << 20, device=device)
    vitals = VitalSigns(device).read()
    assert vitals.gpu_memory_bytes is not None
    assert vitals.gpu_memory_bytes >= held.nbytes
    assert vitals.gpu_utilisation is None or 0.0 <= vitals.gpu_utilisation <= 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_on_gpus_train_the_network_that_one_trains(world_size: int, tmp_path: Path) -> None:
    """Through torch's SyncBatchNorm; over gloo, for which one GPU will do."""
    mp.spawn(train_small_networks, (world_size, tmp_path, "cuda:0"), nprocs=world_size)
    for name in NETWORKS:
        model, losses = train_steps(LocalWorker("cuda:0"), name)
        ranks = [torch.load(tmp_path / f"{name}-{rank}.pt", map_location="cuda:0") for rank in range(world_size)]
        for state, seen in ranks:
            assert seen == pytest.approx(losses, rel=1e-11)
            assert largest_difference(model.state_dict(), state) < 1e-10
            assert largest_difference(ranks[0][0], state) == 0.0
