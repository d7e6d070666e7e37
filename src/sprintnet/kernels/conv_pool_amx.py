"""A 3x3 convolution with few input channels and 2x2 max pooling in one C kernel that uses AMX; like conv_pool.py."""

import sys

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from sprintnet.kernels import conv3x3_amx
from sprintnet.kernels.build import call, load_library
from sprintnet.kernels.conv_pool import MAX_IMAGE_SIDE, MAX_INPUT_CHANNELS, ConvPool, count_flop
from sprintnet.kernels.tensors import empty_maxima, require_supported

TILE, DEPTH = 16, 32
"""As in tiles.h: rows of a tile, bf16 values in one of them."""


def is_supported(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether the kernel is available and supports layers of this shape."""
    is_small = channels <= MAX_INPUT_CHANNELS and max(height, width) <= MAX_IMAGE_SIDE
    fits = is_small and channels % 2 == 0 and min(height, width) >= 2
    return fits and conv3x3_amx.is_supported(channels, outputs, height, width) and load_library("conv_pool_amx") is not None


def convolve_and_pool(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns maxima (N, O, H/2, W/2), in channels_last, of bf16 maps (N, C, H, W) convolved with weight (O, C, 3, 3).

    Padding is 1; an odd last row or column is left out. Values that are not finite may make maxima to their left NaN.
    Raises ValueError for tensors that the kernel does not support.
    """
    require_supported(sys.modules[__name__], maps, weight, torch.bfloat16, has_input_gradient=False)
    maxima: Tensor = ConvPool.apply(maps, weight, _conv_pool, conv3x3_amx.grad_weight)  # type: ignore[no-untyped-call]
    return maxima


@torch.library.custom_op("sprintnet::conv_pool_amx", mutates_args=())
def _conv_pool(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns maxima and, as bytes, which of its four pixels each comes from."""
    (images, channels, height, width), outputs = maps.shape, len(weight)
    maxima, indices = empty_maxima(maps, outputs)
    steps = -(-3 * channels // DEPTH)
    rows = maps.new_zeros(outputs, 3, steps * DEPTH)
    rows[:, :, : 3 * channels] = weight.permute(0, 2, 3, 1).flatten(2)
    filters = rows.view(outputs // TILE, TILE, 3, steps, TILE, 2).permute(0, 2, 3, 4, 1, 5).contiguous()  # as tiles, in pairs
    sizes = images, height, width, channels, outputs
    call("conv_pool_amx", "conv_pool", *sizes, maps, filters, maxima, indices, torch.get_num_threads())
    return maxima, indices


@_conv_pool.register_fake
def _(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return empty_maxima(maps, len(weight))


register_flop_formula(torch.ops.sprintnet.conv_pool_amx)(lambda maps, weight, *_, **__: count_flop(maps, weight[0]))
