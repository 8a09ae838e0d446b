from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from transferlib.training.pooling import DeterministicAveragePool, make_pooling_deterministic


@pytest.mark.parametrize("size", [(7, 7), (1, 1), (3, 3), (14, 10), (9, 8)])
def test_values_are_torchs_own_and_so_are_gradients(size: tuple[int, int]) -> None:
    ours = torch.randn(2, 3, *size, requires_grad=True, generator=torch.Generator().manual_seed(0))
    theirs = ours.detach().clone().requires_grad_()
    left, right = DeterministicAveragePool((7, 7))(ours), nn.AdaptiveAvgPool2d((7, 7))(theirs)
    assert torch.equal(left, right)
    weights = torch.arange(left.numel(), dtype=torch.float32).view_as(left)
    (left * weights).sum().backward()
    (right * weights).sum().backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_vggs_pooling_is_replaced_and_resnets_is_left() -> None:
    with torch.device("meta"):
        vgg, resnet = get_model("vgg11", weights=None), get_model("resnet18", weights=None)
    keys = list(vgg.state_dict())
    for model in (vgg, resnet):
        make_pooling_deterministic(model)
    assert type(vgg.avgpool) is DeterministicAveragePool
    assert type(resnet.avgpool) is nn.AdaptiveAvgPool2d
    assert list(vgg.state_dict()) == keys
