"""A 3x3 convolution with few input channels and 2x2 max pooling in one C kernel, for inputs that need no gradient.

The feature map in between, the largest of a network, is never written, nor is its gradient. Maxima are taken before sums are
rounded to bf16, so the gradient may go to another of the pixels that round to the same value.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from sprintnet.kernels.build import BATCH_PARTS, BF16_LANES, BLOCK_ROWS, call, load_library
from sprintnet.kernels.tensors import empty_maxima, require_supported

Operation = Callable[..., Any]
HAS_INPUT_GRADIENT = False
MAX_INPUT_CHANNELS, MAX_OUTPUTS, MAX_IMAGE_SIDE = 32, 256, 64
"""So that the working memory of a thread fits its stack."""


def is_supported(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether the kernel is available and supports layers of this shape."""
    is_small = channels <= MAX_INPUT_CHANNELS and outputs <= MAX_OUTPUTS and min(height, width) >= 2
    fits = is_small and max(height, width) <= MAX_IMAGE_SIDE and channels % BLOCK_ROWS == outputs % BF16_LANES == 0
    return fits and load_library("conv_pool") is not None


def convolve_and_pool(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns maxima (N, O, H/2, W/2), in channels_last, of bf16 maps (N, C, H, W) convolved with weight (O, C, 3, 3).

    Padding is 1; an odd last row or column is left out. Raises ValueError for tensors that the kernel does not support.
    """
    require_supported(sys.modules[__name__], maps, weight, torch.bfloat16, has_input_gradient=False)
    maxima: Tensor = ConvPool.apply(maps, weight, _conv_pool, _grad_weight)  # type: ignore[no-untyped-call]
    return maxima


class ConvPool(torch.autograd.Function):
    """`compute` returns maxima and their indices of maps and weight; `grad_weight` takes maps, gradient, indices."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, compute: Operation, grad_weight: Operation) -> Tensor:
        """Returns the maxima."""
        maps = maps.contiguous(memory_format=torch.channels_last)
        maxima: Tensor
        maxima, indices = compute(maps, weight)
        ctx.save_for_backward(maps, indices)
        ctx.grad_weight = grad_weight
        return maxima

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor, None, None]:
        """Returns the gradient of the weight."""
        maps, indices = ctx.saved_tensors
        gradient = ctx.grad_weight(maps, grad_output.contiguous(memory_format=torch.channels_last), indices)
        return None, gradient, None, None


@torch.library.custom_op("sprintnet::conv_pool", mutates_args=())
def _conv_pool(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns maxima and, as bytes, which of its four pixels each comes from."""
    (images, channels, height, width), outputs = maps.shape, len(weight)
    maxima, indices = empty_maxima(maps, outputs)
    halves = weight.bfloat16().reshape(outputs // BF16_LANES, 2, BF16_LANES // 2, channels // 2, 2, 3, 3)
    panels = halves.permute(0, 5, 6, 3, 1, 2, 4).contiguous()  # the order in which the kernel reads the filters
    sizes = images, height, width, channels, outputs
    call("conv_pool", "conv_pool", *sizes, maps, panels, maxima, indices)
    return maxima, indices


@_conv_pool.register_fake
def _(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return empty_maxima(maps, len(weight))


@torch.library.custom_op("sprintnet::conv_pool_grad_weight", mutates_args=())
def _grad_weight(maps: Tensor, grad_output: Tensor, indices: Tensor) -> Tensor:
    """Returns the gradient of the weight, fp32 (O, C, 3, 3)."""
    (images, channels, height, width), outputs = maps.shape, indices.shape[1]
    sums = torch.empty(BATCH_PARTS, 3, 3, channels, outputs, dtype=torch.float32, device=maps.device)
    call("conv_pool", "conv_pool_backward", images, height, width, channels, outputs, maps, grad_output, indices, sums)
    return sums.sum(0).permute(3, 2, 0, 1).clone()  # an output may not be a view


@_grad_weight.register_fake
def _(maps: Tensor, grad_output: Tensor, indices: Tensor) -> Tensor:
    shape = (maps.shape[1], indices.shape[1])
    return maps.new_empty(3, 3, *shape, dtype=torch.float32).permute(3, 2, 0, 1).clone()


@register_flop_formula(torch.ops.sprintnet.conv_pool)
def _flop(maps: Any, weight: Any, *_: Any, **__: Any) -> int:
    return count_flop(maps, weight[0])


@register_flop_formula(torch.ops.sprintnet.conv_pool_grad_weight)
def _grad_weight_flop(maps: Any, grad_output: Any, *_: Any, **__: Any) -> int:
    return count_flop(maps, grad_output[1])


def count_flop(maps: Any, outputs: int) -> int:
    """Returns the multiplications and additions of the convolution; an odd last row or column has none."""
    images, channels, height, width = maps
    return int(2 * images * (height // 2) * (width // 2) * 4 * 9 * channels * outputs)
