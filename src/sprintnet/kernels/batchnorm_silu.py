"""Batch norm and SiLU fused in a C kernel where a CPU trains: half of the memory traffic."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sprintnet.kernels import dispatch
from sprintnet.kernels.build import BATCH_PARTS, call
from sprintnet.kernels.tensors import as_one_image, from_one_image, is_hwnc, laid_out_like, to_pixels


class Norm(nn.BatchNorm2d):
    """Batch norm with a trained bias, a fixed weight of 1 and fast running statistics."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad = False

    def forward(self, input: Tensor) -> Tensor:
        """Returns normalised maps (B, C, H, W)."""
        if input.dim() != 4 or not is_hwnc(input):
            return super().forward(input)
        normalised: Tensor = super().forward(as_one_image(input))
        return from_one_image(normalised, input.shape)

    def forward_silu(self, maps: Tensor, skip: Tensor | None = None) -> Tensor:
        """Returns silu(self(maps)), or silu(self(maps) + skip), (B, C, H, W); in one kernel where possible."""
        library = self.silu_library(maps)
        if library is not None and (skip is None or skip.dtype == maps.dtype):
            return self._fused_silu(maps, skip, library)
        normalised = self(maps)
        return F.silu(normalised if skip is None else skip + normalised)

    def silu_library(self, maps: Tensor) -> str | None:
        """Returns the library that supports these maps, if any."""
        is_supported = self.bias.dtype == torch.float32 and dispatch.can_train(self, maps) and _rows(maps)[0] > 1
        return dispatch.silu_library(maps.dtype, maps.shape[1]) if is_supported else None

    def _fused_silu(self, maps: Tensor, skip: Tensor | None, library: str) -> Tensor:
        features, mean, variance = _NormSiLU.apply(maps, skip, self.bias, self.eps, library)  # type: ignore[no-untyped-call]
        count, _ = _rows(maps)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        result: Tensor = features
        return result


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, skip: Tensor | None, bias: Tensor, eps: float, library: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.library, maps = library, to_pixels(maps)
        skip = None if skip is None else laid_out_like(skip, maps)
        shift_of_moments, mean_square = _mean_moments(library, "moments", maps)
        mean = maps[0, :, 0, 0].double() + shift_of_moments
        variance = (mean_square - shift_of_moments.square()).clamp_min(0)
        scale = (variance + eps).rsqrt().float()
        shift = bias.detach() - mean.float() * scale
        features = torch.empty_like(maps)
        call(library, "forward", *_rows(maps), maps, scale, shift, skip, features)
        ctx.save_for_backward(maps, skip, bias, scale, shift)
        mean, variance = mean.float(), variance.float()
        ctx.mark_non_differentiable(mean, variance)
        return features, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor, Tensor | None, Tensor, None, None]:
        maps, skip, bias, scale, shift = ctx.saved_tensors
        inputs = scale, shift, skip, laid_out_like(grad_output, maps)
        grad_bias, grad_scale = _mean_moments(ctx.library, "gradient_moments", maps, *inputs)
        grad_scale -= bias * grad_bias  # of x / sd: normalised maps without the bias
        slope = -scale * grad_scale
        offset = -scale * grad_bias - slope * bias
        grad_input, grad_skip = torch.empty_like(maps), None if skip is None else torch.empty_like(maps)
        call(ctx.library, "backward", *_rows(maps), maps, *inputs, slope.float(), offset.float(), grad_input, grad_skip)
        return grad_input, grad_skip, (grad_bias * _rows(maps)[0]).float(), None, None


def _mean_moments(library: str, name: str, maps: Tensor, *more: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns two means for each channel, fp64 (C,)."""
    rows, channels = _rows(maps)
    sums = torch.empty(BATCH_PARTS, 2, channels, dtype=torch.float32, device=maps.device)
    call(library, name, rows, channels, maps, *more, sums)
    first, second = sums.double().sum(0) / rows
    return first, second


def _rows(maps: Tensor) -> tuple[int, int]:
    """Returns the numbers of pixels and of channels."""
    channels = maps.shape[1]
    return maps.numel() // channels, channels
