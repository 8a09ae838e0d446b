from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from transferlib.training.loss import TrainingLoss, class_weights, mean_nll

CPU = torch.device("cpu")


def test_loss_is_a_sum_over_images() -> None:
    loss = TrainingLoss(None, 0.0)
    assert loss.loss_sum(torch.zeros(3, 4), torch.tensor([0, 1, 3])).item() == pytest.approx(3 * math.log(4))
    assert loss.loss_sum(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).item() == 0.0


def test_sums_over_parts_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(7, 3, generator=generator), torch.tensor([0, 1, 2, 2, 1, 0, 0])
    loss = TrainingLoss(torch.tensor([0.5, 1.0, 2.0]), 0.1)
    parts = loss.loss_sum(logits[:2], labels[:2]) + loss.loss_sum(logits[2:], labels[2:])
    assert parts.item() == pytest.approx(loss.loss_sum(logits, labels).item(), rel=1e-6)


def test_balanced_weights_go_as_one_over_a_classs_images_and_average_one() -> None:
    labels = np.array([0] * 6 + [1] * 2)
    weights = class_weights("balanced", labels, 2, CPU)
    assert weights is not None
    assert weights.tolist() == pytest.approx([8 / 12, 8 / 4])
    assert weights[torch.from_numpy(labels)].mean().item() == pytest.approx(1.0)
    assert class_weights("none", labels, 2, CPU) is None


def test_a_weighted_image_counts_by_its_classs_weight() -> None:
    loss = TrainingLoss(torch.tensor([1.0, 3.0]), 0.0)
    assert loss.loss_sum(torch.zeros(2, 2), torch.tensor([0, 1])).item() == pytest.approx(4 * math.log(2))


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    log_p = torch.log_softmax(logits, 1)[0]
    expected = -(0.95 * log_p[0] + 0.05 * log_p[1])
    assert TrainingLoss(None, 0.1).loss_sum(logits, torch.tensor([0])).item() == pytest.approx(expected.item())


def test_low_precision_logits_are_summed_in_float32() -> None:
    loss = TrainingLoss(None, 0.0).loss_sum(torch.zeros(5, 3, dtype=torch.bfloat16), torch.zeros(5, dtype=torch.int64))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(5 * math.log(3), rel=1e-6)


def test_validation_loss_is_the_plain_mean() -> None:
    assert mean_nll(np.zeros((4, 5), np.float32), np.array([0, 1, 2, 4])) == pytest.approx(math.log(5))
