"""Real process groups: two and three ranks on this machine, over gloo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from tests.training.ranks import run_rank, train_with_losses
from tests.training.small_networks import NETWORKS, largest_difference, train_steps
from transferlib.evaluation.predictions import Predictions
from transferlib.records import TrialProgress
from transferlib.training.trial import TrialInputs, evaluate_chosen
from transferlib.training.worker import LocalWorker

pytestmark = pytest.mark.slow


def test_two_ranks_train_what_one_trains_and_stop_as_one(
    make_inputs: Callable[..., TrialInputs], tmp_path: Path
) -> None:
    """One process group for all that needs one: starting two processes takes longer than what they do."""
    curve = {"strategy": "full", "epochs": 1, "global_batch_size": 9, "class_weights": "balanced"}
    alone = make_inputs("alone", **curve)
    train_with_losses(alone, LocalWorker())
    inputs = {
        "curve": make_inputs("curve", **curve),
        "whole": make_inputs("whole", epochs=1),
        "stopped": make_inputs("stopped", epochs=1),
    }
    mp.spawn(run_rank, (2, tmp_path, inputs), nprocs=2)

    assert_same_in_float64(tmp_path, 2)

    # The same global batches give the same losses in float32 too, BatchNorm trained: six digits, until rounding turns
    # an activation over at a ReLU.
    losses = [json.loads((trial.folder.path / "losses.json").read_text()) for trial in (alone, inputs["curve"])]
    assert len(losses[0]) == 5
    assert losses[1][0] == pytest.approx(losses[0][0], abs=1e-6)
    assert losses[1] == pytest.approx(losses[0], abs=1e-2)

    # Only the last rank was asked to stop, at its fourth step; all ranks stopped there.
    results = [json.loads((tmp_path / f"stopped-{rank}.json").read_text()) for rank in range(2)]
    assert results[0] == results[1]
    assert results[0]["state"] == "stopped"
    assert "after 4 of 6 steps" in results[0]["reason"]

    # Going on ends in the same bits.
    whole, stopped = (inputs[name].folder.read_result() for name in ("whole", "stopped"))
    assert whole is not None
    assert stopped is not None
    assert whole.num_workers == 2
    assert (stopped.weights_sha256, stopped.val_loss) == (whole.weights_sha256, whole.val_loss)
    by_both = Predictions.load(inputs["stopped"].folder.predictions("val"))
    by_both.check_complete(inputs["stopped"].images, "val")

    # Images and steps are counted over both ranks, once.
    for name in ("whole", "stopped"):
        totals = TrialProgress.from_json(inputs[name].folder.progress.read_text()).totals
        assert totals is not None
        assert (totals.train.images, totals.train.steps, totals.val.images, totals.steps_redone) == (41, 6, 13, 0)

    # Both ranks validated the network that was saved, statistics included.
    evaluate_chosen(inputs["stopped"], LocalWorker(), "val")
    by_one = Predictions.load(inputs["stopped"].folder.predictions("val"))
    np.testing.assert_allclose(by_both.logits, by_one.logits, rtol=1e-4, atol=1e-4)


def assert_same_in_float64(folder: Path, world_size: int) -> None:
    """Losses, weights and statistics of six steps are one worker's, although some share is empty."""
    for name in NETWORKS:
        model, losses = train_steps(LocalWorker(), name)
        ranks = [torch.load(folder / f"{name}-{rank}.pt") for rank in range(world_size)]
        for state, seen in ranks:
            assert seen == pytest.approx(losses, rel=1e-11)
            assert largest_difference(model.state_dict(), state) < 1e-10
            assert largest_difference(ranks[0][0], state) == 0.0


def test_over_three_ranks_too_a_restart_changes_no_bit(make_inputs: Callable[..., TrialInputs], tmp_path: Path) -> None:
    """Over two ranks a sum has one order; over three it depends on where DDP put the gradient."""
    inputs = {name: make_inputs(name, strategy="last_layers", epochs=1) for name in ("whole", "stopped")}
    mp.spawn(run_rank, (3, tmp_path, inputs), nprocs=3)
    assert_same_in_float64(tmp_path, 3)
    whole, stopped = (inputs[name].folder.read_result() for name in ("whole", "stopped"))
    assert whole is not None
    assert stopped is not None
    assert whole.num_workers == 3
    assert stopped.weights_sha256 == whole.weights_sha256
