"""On a GPU, through the real job process: it is used, and the same job ends in the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.on_ray.jobs import make_run, run_to_end, write_images
from transferlib.planning.machine import detect_machine
from transferlib.planning.plan import Plan
from transferlib.records import TrialResult
from transferlib.runs import RunFolder, read_json

TRIAL = "resnet18-full-s0-c0"
FLOAT32_BYTES = 4


def run_on_gpu(folder: Path, data: Path) -> RunFolder:
    run = make_run(
        folder / "runs",
        data,
        folder / "cache",
        machine=detect_machine(folder, folder),
        training={"epochs": 2, "precision": "bf16"},
        resources={"gpus": 1},
    )
    assert run_to_end(run, folder) == 0, (run.log / "job.log").read_text()[-4000:]
    return run


def result_of(run: RunFolder) -> TrialResult:
    result = run.trial(TRIAL).read_result()
    assert result is not None
    return result


@pytest.mark.gpu
@pytest.mark.ray
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_job_trains_on_the_gpu_and_ends_in_the_same_weights_twice(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images", {"train": 24, "val": 6, "test": 6})
    first, second = run_on_gpu(tmp_path, data), run_on_gpu(tmp_path, data)
    for run in (first, second):
        plan = Plan.from_json(run.plan.read_text())
        assert (plan.use_gpu, plan.gpus, plan.workers_per_trial) == (True, 1, 1)
        assert read_json(run.status)["state"] == "done"
        assert read_json(run.environment)["use_gpu"] is True
        result = result_of(run)
        assert (result.state, result.epochs, result.precision) == ("done", 2, "bf16")
        # CUDA's allocator held weights, gradients and momentum; a process that loaded CUDA is never as small as this,
        # so it is not the resident set that a trial on the CPU reports.
        assert 3 * FLOAT32_BYTES * result.total_parameters <= result.peak_memory_bytes < 800 << 20
        assert run.trial(TRIAL).predictions("test").exists()
    assert result_of(first).weights_sha256 == result_of(second).weights_sha256
    assert result_of(first).val_loss == result_of(second).val_loss
