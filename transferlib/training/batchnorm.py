"""BatchNorm whose statistics are of the whole step, however many ranks share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

AllReduce = Callable[[Tensor], Tensor]
"""Returns the sum over all ranks, the same on each; may overwrite its argument."""


def synchronise_batchnorm(model: nn.Module, all_reduce: AllReduce, device: torch.device) -> None:
    """Replace, in place, the BatchNorm layers in train mode by ones that see the whole step; frozen ones stay.

    Parameters and buffers stay the same tensors under the same names. On a GPU the new layers are torch's own, which
    gather over the default process group; torch has none for a CPU.

    Args:
        model: A plain torchvision model on the device, each layer's mode set.
        all_reduce: Of this rank's worker.
        device: Where the model is.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d) and child.training:
                layer: nn.Module
                if device.type == "cuda":
                    layer = nn.SyncBatchNorm.convert_sync_batchnorm(child)  # type: ignore[no-untyped-call]
                else:
                    layer = StepBatchNorm2d(child, all_reduce)
                setattr(parent, name, layer)


class StepBatchNorm2d(nn.BatchNorm2d):
    """Normalise by the mean and variance over all ranks' images of a step; in evaluation mode as any BatchNorm.

    Args:
        layer: Gives its parameters and buffers; affine, with running statistics and a momentum, as torchvision's are.
        all_reduce: Sums over ranks; called once in each forward pass in train mode, and once in its backward pass.
    """

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, layer: nn.BatchNorm2d, all_reduce: AllReduce) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, device="meta")
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, parameter)
        for name, buffer in layer.named_buffers():
            self.register_buffer(name, buffer)
        self._all_reduce = all_reduce

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised activations, [B, C, H, W]; B may be 0 and differ from rank to rank.

        Raises:
            ValueError: The step has a single value a channel.
        """
        if not self.training:
            return super().forward(input)
        mean, variance, count = self._step_statistics(input.detach())
        self._track(mean, variance, count)
        dtype = self.running_mean.dtype
        normalised: Tensor = _Normalise.apply(
            input, self.weight, self.bias, mean.to(dtype), variance.to(dtype), count, self.eps, self._all_reduce
        )
        return normalised

    def _step_statistics(self, values: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return mean and biased variance by channel, float64 [C], and the number of values, all over the step."""
        sums = torch.zeros(2 * self.num_features + 1, dtype=torch.float64)
        if len(values):
            # The kernel of torch's own layer: in float32 for bfloat16 too. The buffers that it moves are thrown away.
            mean, variance = (
                moment.double()
                for moment in torch.batch_norm_update_stats(
                    values, self.running_mean.clone(), self.running_var.clone(), 0.0
                )
            )
            here = values.numel() // self.num_features
            sums = torch.cat([mean * here, (variance + mean.square()) * here, torch.tensor([here])])
        sums = self._all_reduce(sums)
        count = sums[-1].item()
        if count < 2:
            raise ValueError(f"Expected more than 1 value per channel when training, got {count:.0f} in the whole step")
        mean, mean_square = (sums[:-1] / count).chunk(2)
        # In float64 the difference keeps 16 digits less those of mean² / variance.
        return mean, (mean_square - mean.square()).clamp_(min=0.0), count

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics, by the unbiased variance, as torch does."""
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), self.momentum)


class _Normalise(torch.autograd.Function):
    """Normalise by given statistics, of which the gradient knows that they are of all ranks' values."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: float,
        eps: float,
        all_reduce: AllReduce,
    ) -> Tensor:
        ctx.save_for_backward(values, weight, mean, variance)
        ctx.count, ctx.eps, ctx.all_reduce = count, eps, all_reduce
        return F.batch_norm(values, mean, variance, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the values, and of weight and bias from this rank's values alone: DDP adds those up.

        Source: Ioffe and Szegedy, Batch Normalization (2015), section 3, with means over the whole step:
        dx = weight / std * (dy - mean(dy) - x_hat * mean(dy * x_hat)).
        """
        values, weight, mean, variance = ctx.saved_tensors
        to_values, to_weight, to_bias = torch.zeros_like(values), torch.zeros_like(weight), torch.zeros_like(weight)
        if len(values):  # torch's kernel divides by the number of images
            # As if the statistics were constants; the means are taken off below.
            to_values, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
                gradient, values, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        sums = ctx.all_reduce(torch.cat([to_weight, to_bias]).double())
        scale = weight * torch.rsqrt(variance + ctx.eps)
        of_x_hat, constant = (sums / ctx.count).to(weight.dtype).neg_().chunk(2)
        to_values += F.batch_norm(values, mean, variance, scale * of_x_hat, scale * constant, eps=ctx.eps)
        return to_values, to_weight, to_bias, None, None, None, None, None
