"""A 3x3 convolution in bf16 on a processor with AMX: PyTorch's own products, but for the weight gradient, which is a C kernel.

PyTorch (oneDNN) computes the output and the gradient of the input at a rate close to that of the tile instructions, and the
gradient of the weight at a quarter of it (LOG.md). The kernel is as exact as PyTorch: fp32 sums of bf16 products.
"""

import sys
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from sprintnet.kernels.build import call, load_library
from sprintnet.kernels.tensors import require_supported

BLOCK, MAX_OUT_CHANNELS = 32, 1024
"""As in conv3x3_amx.c: channels of a block, output channels."""
CHUNK_PIXELS = 2048
"""Pixels that are laid out and multiplied at once: the operands of a product stay in a core's cache."""
PADDING = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
"""Arguments of `convolution_backward` after the weight: no bias, stride, padding, dilation, not transposed, groups."""


def is_supported(channels: int, out_channels: int, height: int, width: int) -> bool:
    """Returns whether the kernel is available and supports layers of this shape."""
    return out_channels % BLOCK == 0 and out_channels <= MAX_OUT_CHANNELS and load_library("conv3x3_amx") is not None


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns bf16 maps (N, C, H, W) convolved with fp32 weight (O, C, 3, 3), padding 1, as (N, O, H, W) in channels_last.

    Raises ValueError for tensors that the kernel does not support.
    """
    require_supported(sys.modules[__name__], maps, weight, torch.bfloat16)
    features: Tensor = _Convolution.apply(maps, weight)  # type: ignore[no-untyped-call]
    return features


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor) -> Tensor:
        maps, rounded = maps.contiguous(memory_format=torch.channels_last), weight.bfloat16()
        ctx.save_for_backward(maps, rounded)
        return torch.conv2d(maps, rounded, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor]:
        maps, weight = ctx.saved_tensors
        grad_output = grad_output.contiguous(memory_format=torch.channels_last)
        grad_input = None
        if ctx.needs_input_grad[0]:
            grad_input, *_ = torch.ops.aten.convolution_backward(grad_output, maps, weight, *PADDING, [True, False, False])
        return grad_input, grad_weight(maps, grad_output, None)


@torch.library.custom_op("sprintnet::conv3x3_grad_weight", mutates_args=())
def grad_weight(maps: Tensor, grad_output: Tensor, indices: Tensor | None) -> Tensor:
    """Returns the gradient of the weight, fp32 (O, C, 3, 3) in channels_last.

    With `indices`, `grad_output` is the gradient of 2x2 maxima; each went to the pixel of its window that they name.
    """
    (images, channels, height, width), outputs = maps.shape, grad_output.shape[1]
    rounded, chunk = -(-channels // BLOCK) * BLOCK, max(1, min(images, CHUNK_PIXELS // ((height + 1) * (width + 1))))
    scratch = maps.new_empty(call("conv3x3_amx", "scratch_values", chunk, height, width, channels, outputs))
    sums = torch.empty((outputs, rounded, 3, 3), device=maps.device, memory_format=torch.channels_last)
    if not images:
        sums.zero_()
    unpooled = None if indices is None else maps.new_empty(chunk * height * width * outputs)
    sizes, tensors = (images, height, width, channels, outputs), (maps, grad_output, indices, unpooled, sums)
    call("conv3x3_amx", "weight_gradient", *sizes, *tensors, chunk, scratch, torch.get_num_threads())
    return sums if channels == rounded else sums[:, :channels].clone(memory_format=torch.channels_last)


@grad_weight.register_fake
def _(maps: Tensor, grad_output: Tensor, indices: Tensor | None) -> Tensor:
    shape = grad_output.shape[1], maps.shape[1], 3, 3
    return torch.empty(shape, device=maps.device, memory_format=torch.channels_last)


@register_flop_formula(torch.ops.sprintnet.conv3x3_grad_weight)
def _flop(maps: Any, grad_output: Any, indices: Any = None, *_: Any, **__: Any) -> int:
    images, channels, height, width = maps
    rows, columns = (height, width) if indices is None else (height // 2 * 2, width // 2 * 2)
    return int(2 * images * rows * columns * 9 * channels * grad_output[1])
