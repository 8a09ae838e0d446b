"""Small networks with BatchNorm, and the steps that one worker or one rank of many takes on them in float64."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import make_layers

from transferlib.training.worker import Worker

CLASSES = 3
STEPS = 6
Shares = Sequence[tuple[int, ...]]
"""Images of each rank, by step."""
SHARES: dict[int, Shares] = {1: [(9,), (8,), (4,)], 2: [(5, 4), (1, 7), (4, 0)], 3: [(2, 3, 4), (6, 1, 1), (0, 1, 3)]}
"""By the number of ranks, steps that come in turn: the same ones, cut unevenly; a rank may have nothing to do."""


def small_resnet() -> nn.Module:
    """Return torchvision's stem and two of its residual blocks, narrow."""
    stem = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    shortcut = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
    blocks = [BasicBlock(8, 8), BasicBlock(8, 16, 2, shortcut)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))


def small_vgg() -> nn.Module:
    """Return VGG-11's pattern with BatchNorm, narrow, without Dropout."""
    features = make_layers([4, "M", 8, "M", 8, 8, "M", 16, 16, "M"], batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))


_SEEDED = threading.Lock()  # ranks may be threads, which share one generator
NETWORKS: dict[str, Callable[[], nn.Module]] = {"resnet": small_resnet, "vgg": small_vgg}


def train_steps(
    worker: Worker,
    network: str,
    *,
    sync_batchnorm: bool = True,
    dtype: torch.dtype = torch.float64,
    steps: int = STEPS,
    shares: Shares = (),
) -> tuple[nn.Module, list[float]]:
    """Take some steps; return the network, and each step's loss over all ranks.

    Args:
        worker: This rank.
        network: One of `NETWORKS`.
        sync_batchnorm: As `Worker.prepare_model` takes it.
        dtype: Of all that is computed.
        steps: How many.
        shares: Of the ranks in the steps, which come in turn; those above where none are given.
    """
    in_turn = shares or SHARES[worker.world_size]
    generator = torch.Generator().manual_seed(3)
    with _SEEDED, torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        model = NETWORKS[network]()
    model = model.to(worker.device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    parallel = worker.prepare_model(model.train(), sync_batchnorm=sync_batchnorm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)
    losses = []
    for step in range(steps):
        share = in_turn[step % len(in_turn)]
        images = torch.randn(sum(share), 3, 32, 32, generator=generator, dtype=torch.float64) * 2 + 1
        labels = torch.randint(CLASSES, (sum(share),), generator=generator)
        mine = slice(sum(share[: worker.rank]), sum(share[: worker.rank + 1]))
        inputs = images[mine].to(worker.device, dtype).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(parallel(inputs), labels[mine].to(worker.device), reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        (loss * (worker.world_size / sum(share))).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(worker.all_reduce(loss.detach().clone()).item() / sum(share))
    return model, losses


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest difference of two state dicts of the same keys, each tensor's in units of its largest value.

    Args:
        one: The reference.
        other: Beside it.
    """
    assert list(one) == list(other)
    return max(
        float((one[key].double() - other[key].double()).abs().max() / one[key].double().abs().max().clamp(min=1e-30))
        for key in one
    )
