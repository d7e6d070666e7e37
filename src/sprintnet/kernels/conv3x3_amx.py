"""A 3x3 convolution in bf16 in a C kernel for processors with AMX, alone or with 2x2 max pooling after it.

Feature maps are in HWNC (tensors.py): the kernel's products leave out taps beyond the border, which are 18 % of those of 7x7
pixels and 56 % of those of 2x2. It is as exact as PyTorch: fp32 sums of bf16 products. With pooling, the feature map in
between is never written; maxima are taken before sums are rounded to bf16, so that the gradient may go to another of the pixels
that round to the same value.
"""

import sys
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from sprintnet.kernels.build import call, load_library
from sprintnet.kernels.tensors import empty_hwnc, require_supported, round_up, to_hwnc

BLOCK, MAX_CHANNELS = 32, 1024
"""As in conv3x3_amx.c: a block has so many channels or images; the most channels of a layer."""
MIN_IMAGES = BLOCK
HAS_INPUT_GRADIENT = True  # of convolve_and_pool
CHUNK_BYTES = 2**20
"""Of feature maps that are laid out and multiplied at once, so that they stay in a core's cache."""


def is_supported(channels: int, out_channels: int, height: int, width: int) -> bool:
    """Returns whether the kernel is available and supports layers of this shape."""
    fits = out_channels % BLOCK == 0 and max(channels, out_channels) <= MAX_CHANNELS
    return fits and load_library("conv3x3_amx") is not None


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns bf16 maps (N, C, H, W) convolved with fp32 weight (O, C, 3, 3), padding 1, as (N, O, H, W) in HWNC.

    Raises ValueError for tensors that the kernel does not support.
    """
    require_supported(sys.modules[__name__], maps, weight, torch.bfloat16)
    features: Tensor = _Convolution.apply(maps, weight, False)  # type: ignore[no-untyped-call]
    return features


def convolve_and_pool(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns maxima (N, O, H/2, W/2), in HWNC, of what `convolve` returns; an odd last row or column is left out.

    Raises ValueError for tensors that the kernel does not support.
    """
    require_supported(sys.modules[__name__], maps, weight, torch.bfloat16)
    maxima: Tensor = _Convolution.apply(maps, weight, True)  # type: ignore[no-untyped-call]
    return maxima


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, is_pooled: bool) -> Tensor:
        features: Tensor
        maps = to_hwnc(maps, BLOCK)
        weight = weight.contiguous(memory_format=torch.channels_last)
        if is_pooled:
            features, indices = _convolve_and_pool(maps, weight)
        else:
            features, indices = _convolve(maps, weight, None, *maps.shape[2:], is_gradient=False), None
        ctx.save_for_backward(maps, weight, indices)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (maps, weight, indices), grad_input = ctx.saved_tensors, None
        grad_output = to_hwnc(grad_output)
        if ctx.needs_input_grad[0]:
            grad_input = _convolve(grad_output, weight, indices, *maps.shape[2:], is_gradient=True)
        return grad_input, _grad_weight(maps, grad_output, indices), None


@torch.library.custom_op("sprintnet::conv3x3_amx", mutates_args=())
def _convolve(maps: Tensor, weight: Tensor, indices: Tensor | None, height: int, width: int, is_gradient: bool) -> Tensor:
    """Returns the convolution of maps of this size in HWNC with weight (O, C, 3, 3) in channels_last.

    For the gradient of the input, weight is (C, O, 3, 3) and `maps` the gradient of the output; with `indices`, that of 2x2
    maxima, each of which came from the pixel of its window that they name.
    """
    output = _empty_output(maps, weight, indices, height, width, is_gradient)
    sizes = len(maps), height, width, maps.stride(0), maps.shape[1], output.shape[1]
    tensors = maps, indices, weight, is_gradient, _empty_filters(weight), _empty_tiles(maps, height, width), output
    call("conv3x3_amx", "convolve", *sizes, *tensors, torch.get_num_threads())
    return output


def _empty_output(maps: Tensor, weight: Tensor, indices: Tensor | None, height: int, width: int, is_gradient: bool) -> Tensor:
    return empty_hwnc((len(maps), weight.shape[int(is_gradient)], height, width), maps.dtype, maps.device)


_convolve.register_fake(_empty_output)


@torch.library.custom_op("sprintnet::conv3x3_amx_pool", mutates_args=())
def _convolve_and_pool(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the maxima of the convolution of maps in HWNC, and, as bytes, which of its four pixels each comes from."""
    maxima, indices = _empty_maxima(maps, weight)
    sizes = len(maps), *maps.shape[2:], maps.stride(0), maps.shape[1], len(weight)
    tensors = maps, weight, _empty_filters(weight), _empty_tiles(maps, *maps.shape[2:])
    call("conv3x3_amx", "convolve_and_pool", *sizes, *tensors, maxima, indices, torch.get_num_threads())
    return maxima, indices


@_convolve_and_pool.register_fake
def _empty_maxima(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    shape = len(maps), len(weight), maps.shape[2] // 2, maps.shape[3] // 2
    return empty_hwnc(shape, maps.dtype, maps.device), empty_hwnc(shape, torch.uint8, maps.device)


@torch.library.custom_op("sprintnet::conv3x3_amx_grad_weight", mutates_args=())
def _grad_weight(maps: Tensor, grad_output: Tensor, indices: Tensor | None) -> Tensor:
    """Returns the gradient of the weight, fp32 (O, C, 3, 3) in channels_last, for maps and gradients in HWNC.

    With `indices`, `grad_output` is that of 2x2 maxima, as in `_convolve`.
    """
    (images, channels, height, width), outputs = maps.shape, grad_output.shape[1]
    inner = round_up(channels, BLOCK)
    row_bytes = 2 * BLOCK * width * (inner + outputs)  # of a block of images
    band = min(height, max(1, CHUNK_BYTES // row_bytes))
    chunk = min(-(-images // BLOCK), max(1, CHUNK_BYTES // (row_bytes * height))) * BLOCK
    scratch = maps.new_empty(chunk * width * ((band + 2) * inner + band * outputs))
    sums, tensors = _empty_gradient(inner, outputs), (maps, grad_output, indices)
    sizes = images, height, width, maps.stride(0), channels, outputs
    call("conv3x3_amx", "weight_gradient", *sizes, *tensors, sums, chunk, band, scratch, torch.get_num_threads())
    return sums if channels == inner else sums[:, :channels].clone(memory_format=torch.channels_last)


@_grad_weight.register_fake
def _(maps: Tensor, grad_output: Tensor, indices: Tensor | None) -> Tensor:
    return _empty_gradient(maps.shape[1], grad_output.shape[1])


def _empty_gradient(channels: int, outputs: int) -> Tensor:
    return torch.empty((outputs, channels, 3, 3), dtype=torch.float32, memory_format=torch.channels_last)


def _empty_filters(weight: Tensor) -> Tensor:
    return weight.new_empty(9 * round_up(len(weight), BLOCK) * round_up(weight.shape[1], BLOCK), dtype=torch.bfloat16)


def _empty_tiles(maps: Tensor, height: int, width: int) -> Tensor:
    return maps.new_empty(torch.get_num_threads() * height * width * round_up(maps.shape[1], BLOCK) * BLOCK)


@register_flop_formula(torch.ops.sprintnet.conv3x3_amx)
def _flop(maps: Any, weight: Any, indices: Any, height: int, width: int, *_: Any, **__: Any) -> int:
    rows, columns = (height, width) if indices is None else (height // 2 * 2, width // 2 * 2)
    return int(2 * maps[0] * rows * columns * 9 * weight[0] * weight[1])


@register_flop_formula(torch.ops.sprintnet.conv3x3_amx_pool)
def _pool_flop(maps: Any, weight: Any, *_: Any, **__: Any) -> int:
    return _flop(maps, weight, True, *maps[2:])


@register_flop_formula(torch.ops.sprintnet.conv3x3_amx_grad_weight)
def _grad_weight_flop(maps: Any, grad_output: Any, indices: Any, *_: Any, **__: Any) -> int:
    return _flop(maps, (grad_output[1], maps[1]), indices, *maps[2:])
