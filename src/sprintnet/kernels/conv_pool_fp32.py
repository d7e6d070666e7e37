"""A 3x3 convolution with few input channels and 2x2 max pooling in one C kernel in fp32, for inputs that need no gradient.

A Winograd convolution (winograd.py) whose output transform takes the maxima: the feature map in between is never written.
"""

import ctypes
import sys

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from sprintnet.kernels import winograd
from sprintnet.kernels.build import BATCH_PARTS, call, load_library
from sprintnet.kernels.conv_pool import MAX_IMAGE_SIDE, MAX_INPUT_CHANNELS, MAX_OUTPUTS, ConvPool, count_flop
from sprintnet.kernels.tensors import empty_maxima, require_supported
from sprintnet.kernels.toom_cook import toom_cook

HAS_INPUT_GRADIENT = False
SIDE = 6
"""As in conv_pool_fp32.c: pixels of a tile's side."""


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("height", "width", "channels", "out_channels")),
        *((name, winograd.Axis) for name in ("input", "output")),
    )


def is_supported(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether the kernel is available and supports layers of this shape."""
    is_small = channels <= MAX_INPUT_CHANNELS and outputs <= MAX_OUTPUTS and max(height, width) <= MAX_IMAGE_SIDE
    if not is_small or channels % 2 or min(height, width) < 2 or load_library("conv_pool_fp32") is None:
        return False
    lanes = winograd.fp32_lanes()
    return lanes > 0 and outputs % (2 * lanes) == 0


def convolve_and_pool(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns maxima (N, O, H/2, W/2), in channels_last, of fp32 maps (N, C, H, W) convolved with fp32 weight (O, C, 3, 3).

    Padding is 1; an odd last row or column is left out. A value that is not finite may make the maxima around it NaN. Raises
    ValueError for tensors that the kernel does not support.
    """
    require_supported(sys.modules[__name__], maps, weight, torch.float32, has_input_gradient=False)
    maxima: Tensor = ConvPool.apply(maps, weight, _conv_pool, _grad_weight)  # type: ignore[no-untyped-call]
    return maxima


@torch.library.custom_op("sprintnet::conv_pool_fp32", mutates_args=())
def _conv_pool(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns maxima and, as bytes, which of its four pixels each comes from."""
    maxima, indices = empty_maxima(maps, len(weight))
    filters = winograd.transform_filters_fp32(weight.transpose(0, 1), SIDE)
    layer = _layer(maps, len(weight))
    threads, scratch = _scratch(maps, layer)
    call("conv_pool_fp32", "conv_pool", layer, len(maps), maps, filters, maxima, indices, scratch, threads)
    return maxima, indices


@_conv_pool.register_fake
def _(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return empty_maxima(maps, len(weight))


@torch.library.custom_op("sprintnet::conv_pool_fp32_grad_weight", mutates_args=())
def _grad_weight(maps: Tensor, grad_output: Tensor, indices: Tensor) -> Tensor:
    """Returns the gradient of the weight (O, C, 3, 3)."""
    channels, outputs = maps.shape[1], indices.shape[1]
    sums = maps.new_empty(BATCH_PARTS, (SIDE + 2) ** 2, channels, outputs)
    layer = _layer(maps, outputs)
    threads, scratch = _scratch(maps, layer)
    call("conv_pool_fp32", "conv_pool_backward", layer, len(maps), maps, grad_output, indices, sums, scratch, threads)
    return winograd.filter_gradient_fp32(sums.sum(0), SIDE).clone()  # an output may not be a view


@_grad_weight.register_fake
def _(maps: Tensor, grad_output: Tensor, indices: Tensor) -> Tensor:
    return maps.new_empty(3, 3, maps.shape[1], indices.shape[1]).permute(3, 2, 0, 1).clone()


def _layer(maps: Tensor, outputs: int) -> _Layer:
    (channels, height, width), (of_output, _, of_input) = maps.shape[1:], toom_cook(SIDE)
    tiles = winograd.tile_axis(height, SIDE, -1, of_input), winograd.tile_axis(height, SIDE, 0, of_output.T)
    return _Layer(height, width, channels, outputs, *tiles)


def _scratch(maps: Tensor, layer: _Layer) -> tuple[int, Tensor]:
    """Returns the number of threads, and their working memory."""
    threads = torch.get_num_threads()
    return threads, maps.new_empty(threads, call("conv_pool_fp32", "scratch_size", layer))


@register_flop_formula(torch.ops.sprintnet.conv_pool_fp32)
def _flop(maps: list[int], weight: list[int], *_: object, **__: object) -> int:
    return count_flop(maps, weight[0])


@register_flop_formula(torch.ops.sprintnet.conv_pool_fp32_grad_weight)
def _grad_weight_flop(maps: list[int], grad_output: list[int], *_: object, **__: object) -> int:
    return count_flop(maps, grad_output[1])
