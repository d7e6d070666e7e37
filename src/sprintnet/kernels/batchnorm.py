"""Batch norm and the activation after it, fused in a C kernel where a CPU trains: half of the memory traffic."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sprintnet.kernels import dispatch
from sprintnet.kernels.build import BATCH_PARTS, call
from sprintnet.kernels.tensors import as_one_image, from_one_image, is_hwnc, laid_out_like, to_kernel_layout
from sprintnet.ranks import ALONE, Ranks

Activation = Callable[[Tensor], Tensor]
"""nn.ReLU(), nn.SiLU(), F.relu or F.silu."""


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d, with an activation in one kernel where possible; over the batch of all `ranks` that train together."""

    ranks: Ranks = ALONE

    def forward(self, input: Tensor) -> Tensor:
        """Returns normalised maps (B, C, H, W)."""
        if self.training and self.ranks.world > 1:
            arguments = input, self.weight, self.bias, self.eps, self.ranks
            over_ranks, mean, variance, count = _NormOverRanks.apply(*arguments)  # type: ignore[no-untyped-call]
            self._update_statistics(mean, variance, int(count))
            result: Tensor = over_ranks
            return result
        if input.dim() != 4 or not is_hwnc(input):
            return super().forward(input)
        normalised: Tensor = super().forward(as_one_image(input))
        return from_one_image(normalised, input.shape)

    def forward_activated(self, maps: Tensor, activation: Activation, skip: Tensor | None = None) -> Tensor:
        """Returns activation(self(maps)), or activation(self(maps) + skip), (B, C, H, W)."""
        library = self.library(maps)
        is_known = activation in (F.relu, F.silu) or isinstance(activation, nn.ReLU | nn.SiLU)
        fits = skip is None or (skip.dtype, skip.shape) == (maps.dtype, maps.shape)
        if library is not None and is_known and fits:
            return self._fused(maps, activation, skip, library)
        normalised = self(maps)
        return activation(normalised if skip is None else skip + normalised)

    def library(self, maps: Tensor) -> str | None:
        """Returns the library that supports these maps, if any."""
        is_supported = self.bias.dtype == torch.float32 and dispatch.can_train(self, maps) and _rows(maps)[0] > 1
        return dispatch.batchnorm_library(maps.dtype, maps.shape[1]) if is_supported else None

    def _fused(self, maps: Tensor, activation: Activation, skip: Tensor | None, library: str) -> Tensor:
        is_relu = activation is F.relu or isinstance(activation, nn.ReLU)
        arguments = maps, skip, self.weight, self.bias, self.eps, is_relu, library, self.ranks
        features, mean, variance, count = _NormActivation.apply(*arguments)  # type: ignore[no-untyped-call]
        self._update_statistics(mean, variance, int(count))
        result: Tensor = features
        return result

    def _update_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Updates the running statistics by those of a batch of `count` pixels in all."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1


class Norm(BatchNorm2d):
    """Batch norm with a trained bias, a fixed weight of 1 and fast running statistics."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad = False


class _NormActivation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor, eps: float, is_relu: bool, library: str,
        ranks: Ranks,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        ctx.library, ctx.is_relu, ctx.ranks, maps = library, is_relu, ranks, to_kernel_layout(maps)
        skip = None if skip is None else laid_out_like(skip, maps)
        shift_of_moments, mean_square = _mean_moments(library, "moments", maps)
        mean = maps[0, :, 0, 0].double() + shift_of_moments
        variance = (mean_square - shift_of_moments.square()).clamp_min(0)
        mean, variance, count = _over_ranks(ranks, _rows(maps)[0], mean, variance)
        scale = (variance + eps).rsqrt()
        inputs = scale.float(), (-mean * scale).float(), weight, bias, skip
        features = torch.empty_like(maps)
        call(library, "forward", *_rows(maps), is_relu, maps, *inputs, features)
        ctx.save_for_backward(maps, *inputs)
        mean, variance = mean.float(), variance.float()
        ctx.mark_non_differentiable(mean, variance, count)
        return features, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        maps, scale, shift, weight, bias, skip = ctx.saved_tensors
        inputs = scale, shift, weight, bias, skip, laid_out_like(grad_output, maps)
        (rows, channels), is_relu = _rows(maps), ctx.is_relu
        mean_gradient, mean_product = _mean_moments(ctx.library, "gradient_moments", maps, *inputs, is_relu=is_relu)
        factor = scale * weight.double()
        means = _mean_over_ranks(ctx.ranks, rows, mean_gradient, mean_product)
        coefficients = factor.float(), (-factor * means[1]).float(), (-factor * means[0]).float()
        grad_input, grad_skip = torch.empty_like(maps), None if skip is None else torch.empty_like(maps)
        call(ctx.library, "backward", rows, channels, is_relu, maps, *inputs, *coefficients, grad_input, grad_skip)
        grad_weight = (mean_product * rows).float() if ctx.needs_input_grad[2] else None
        return grad_input, grad_skip, grad_weight, (mean_gradient * rows).float(), None, None, None, None


class _NormOverRanks(torch.autograd.Function):
    """Batch norm over the batch of all ranks, in PyTorch's operations."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(maps.float(), dim=(0, 2, 3), correction=0)
        mean, variance, count = _over_ranks(ranks, _rows(maps)[0], mean.double(), variance.double())
        scale = (variance + eps).rsqrt()
        normalised = (maps.float() - _channels(mean.float())) * _channels(scale.float())
        ctx.ranks, ctx.dtype = ranks, maps.dtype
        ctx.save_for_backward(normalised, scale, weight)
        mean, variance = mean.float(), variance.float()
        ctx.mark_non_differentiable(mean, variance, count)
        return (normalised * _channels(weight) + _channels(bias)).to(maps.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        normalised, scale, weight = ctx.saved_tensors
        gradient, (rows, _channel) = grad_output.float(), _rows(normalised)
        mean_gradient, mean_product = (values.mean((0, 2, 3)).double() for values in (gradient, gradient * normalised))
        means = [_channels(mean.float()) for mean in _mean_over_ranks(ctx.ranks, rows, mean_gradient, mean_product)]
        grad_input = (gradient - means[0] - normalised * means[1]) * _channels(scale.float() * weight)
        grad_weight = (mean_product * rows).float() if ctx.needs_input_grad[1] else None
        return grad_input.to(ctx.dtype), grad_weight, (mean_gradient * rows).float(), None, None


def _channels(values: Tensor) -> Tensor:
    return values[:, None, None]


def _over_ranks(ranks: Ranks, rows: int, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mean and variance (C,) over the pixels of all ranks, from those of this one's `rows`, and their number (1,).

    Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance".
    """
    count = torch.full((1,), float(rows), dtype=mean.dtype, device=mean.device)
    if ranks.world == 1:
        return mean, variance, count
    counts, means, variances = torch.stack(ranks.gather(torch.cat([count.expand_as(mean), mean, variance]))).chunk(3, 1)
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    return mean, (counts * (variances + (means - mean).square())).sum(0) / total, total[:1]


def _mean_over_ranks(ranks: Ranks, rows: int, *means: Tensor) -> Sequence[Tensor]:
    """Returns means (C,) over the pixels of all ranks, from those of this one's `rows`."""
    if ranks.world == 1:
        return means
    sums = ranks.sum(torch.cat([*(mean * rows for mean in means), means[0].new_full((1,), rows)]))
    return (sums[:-1] / sums[-1]).chunk(len(means))


def _mean_moments(library: str, name: str, maps: Tensor, *more: Tensor | None, **flags: bool) -> tuple[Tensor, Tensor]:
    """Returns two means for each channel, fp64 (C,)."""
    rows, channels = _rows(maps)
    sums = torch.empty(BATCH_PARTS, 2, channels, dtype=torch.float32, device=maps.device)
    call(library, name, rows, channels, *flags.values(), maps, *more, sums)
    first, second = sums.double().sum(0) / rows
    return first, second


def _rows(maps: Tensor) -> tuple[int, int]:
    """Returns the numbers of pixels and of channels."""
    channels = maps.shape[1]
    return maps.numel() // channels, channels
