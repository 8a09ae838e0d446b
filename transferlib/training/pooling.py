"""VGG's average pooling with a deterministic backward pass; torch's own has none on a GPU and refuses to run."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def make_pooling_deterministic(model: nn.Module) -> None:
    """Replace, in place, a network's adaptive average pooling to more than one value; it has no weights.

    Forward passes give the same bits as before. Pooling to one value is a mean, which is deterministic as it is.

    Args:
        model: A plain torchvision model.

    Source: torch 2.15, documentation of `use_deterministic_algorithms` (AdaptiveAvgPool2d).
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                setattr(parent, name, DeterministicAveragePool(child.output_size))


class DeterministicAveragePool(nn.AdaptiveAvgPool2d):
    """Pool as torch does; send gradients back through two matrix products."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the means of output_size cells, [B, C, ...]."""
        pooled: Tensor = _Pool.apply(input, self.output_size)
        return pooled


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.side = images.shape[2:]
        return F.adaptive_avg_pool2d(images, size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows, columns = (
            _mean_matrix(cells, side, gradient.device) for cells, side in zip(gradient.shape[2:], ctx.side, strict=True)
        )
        return (rows.T @ gradient.float() @ columns).to(gradient.dtype), None


def _mean_matrix(cells: int, side: int, device: torch.device) -> Tensor:
    """Return what averages `side` values to `cells` means, float32 [cells, side].

    Source: torch's adaptive pooling: cell i covers floor(i side / cells) to ceil((i + 1) side / cells).
    """
    at = torch.arange(side, device=device)
    cell = torch.arange(cells, device=device)[:, None]
    inside = (at >= cell * side // cells) & (at < -((-(cell + 1) * side) // cells))
    return inside.float() / inside.sum(1, keepdim=True)
