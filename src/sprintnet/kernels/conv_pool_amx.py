"""A 3x3 convolution with few input channels and 2x2 max pooling in one C kernel that uses AMX; like conv_pool.py."""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from sprintnet.kernels import conv3x3_amx
from sprintnet.kernels.build import call, load_library
from sprintnet.kernels.conv3x3_amx import BLOCK, DEPTH
from sprintnet.kernels.conv_pool import MAX_INPUT_CHANNELS, ConvPool, count_flop

TILE = 16
"""As in tiles.h: rows of a tile."""


def is_supported(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether the kernel is available and supports layers of this shape."""
    fits = channels <= MAX_INPUT_CHANNELS and channels % 2 == 0 and min(height, width) >= 2
    return fits and conv3x3_amx.is_supported(channels, outputs, height, width) and load_library("conv_pool_amx") is not None


def convolve_and_pool(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns maxima (N, O, H/2, W/2), in channels_last, of bf16 maps (N, C, H, W) convolved with weight (O, C, 3, 3).

    Padding is 1; an odd last row or column is left out. Infinite values may make maxima beside their windows NaN.
    Raises ValueError for tensors that the kernel does not support.
    """
    (_, channels, *size), outputs = maps.shape, len(weight)
    on_cpu = maps.device.type == weight.device.type == "cpu"
    is_bf16 = maps.dtype == torch.bfloat16 and not maps.requires_grad
    if not (weight.shape == (outputs, channels, 3, 3) and is_bf16 and on_cpu and is_supported(channels, outputs, *size)):
        raise ValueError(f"conv_pool_amx: not for maps {maps.dtype} {tuple(maps.shape)} and weight {tuple(weight.shape)}")
    maxima: Tensor = ConvPool.apply(maps, weight, _conv_pool, conv3x3_amx.grad_weight)  # type: ignore[no-untyped-call]
    return maxima


@torch.library.custom_op("sprintnet::conv_pool_amx", mutates_args=())
def _conv_pool(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns maxima and, as bytes, which of its four pixels each comes from."""
    (images, channels, height, width), outputs = maps.shape, len(weight)
    shape = (images, outputs, height // 2, width // 2)
    maxima = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
    indices = torch.empty(shape, dtype=torch.uint8, device=maps.device, memory_format=torch.channels_last)
    steps = -(-3 * channels // DEPTH)
    rows = maps.new_zeros(outputs, 3, steps * DEPTH)
    rows[:, :, : 3 * channels] = weight.permute(0, 2, 3, 1).flatten(2)
    filters = rows.view(outputs // TILE, TILE, 3, steps, TILE, 2).permute(0, 2, 3, 4, 1, 5).contiguous()  # as tiles, in pairs
    pixels = (height // 2 + 2) * ((width + 2) // 2 * 2) + TILE + 2
    size = -(-2 * (pixels * channels + 3 * DEPTH) // BLOCK) * BLOCK
    threads = torch.get_num_threads()
    tensors = maps, filters, maxima, indices, maps.new_empty(threads * size)
    call("conv_pool_amx", "conv_pool", images, height, width, channels, outputs, *tensors, size, threads)
    return maxima, indices


@_conv_pool.register_fake
def _(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    shape = (len(maps), len(weight), maps.shape[2] // 2, maps.shape[3] // 2)
    maxima = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
    return maxima, torch.empty_like(maxima, dtype=torch.uint8)


register_flop_formula(torch.ops.sprintnet.conv_pool_amx)(lambda maps, weight, *_, **__: count_flop(maps, weight[0]))
