"""A 3x3 convolution of few channels and max pooling over 2x2 pixels in one compiled kernel, for maps that need no gradient.

The map between, the largest of a network that has both on its images, is never written, nor is its gradient. Maxima are
those of a convolution's results, but for the order of its sums; they are found before sums are rounded to bf16, so that a
gradient may go to another of the pixels that round alike.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sprintnet.kernels.build import call, load_library
from sprintnet.kernels.flops import count_products

LANES, CHANNELS, PARTS = 32, 8, 64
"""As in conv_pool.c: what outputs and channels are multiples of, and the parts of a batch that sums are taken over."""
MAX_CHANNELS, MAX_MAP_SIDE = 32, 64
"""So that what a thread needs fits its stack."""


def is_supported(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether the kernel is there and takes layers of this shape."""
    is_small = (
        channels <= MAX_CHANNELS and outputs <= 8 * LANES and 2 <= min(height, width) <= max(height, width) <= MAX_MAP_SIDE
    )
    return is_small and channels % CHANNELS == outputs % LANES == 0 and load_library("conv_pool") is not None


def convolve_and_pool(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns maxima (N, O, H/2, W/2), in channels_last, of bf16 maps (N, C, H, W) convolved with weight (O, C, 3, 3).

    Padding is 1; a last row or column without a partner is left out. `is_supported` says which shapes it takes.
    """
    (_, channels, *size), outputs = maps.shape, len(weight)
    assert weight.shape == (outputs, channels, 3, 3)
    assert maps.dtype == torch.bfloat16
    assert maps.device.type == weight.device.type == "cpu"
    assert not maps.requires_grad
    assert is_supported(channels, outputs, *size)
    maxima: Tensor = _ConvolutionMaxima.apply(maps, weight)  # type: ignore[no-untyped-call]
    return maxima


class _ConvolutionMaxima(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor) -> Tensor:
        maps = maps.contiguous(memory_format=torch.channels_last)
        (images, _, height, width), outputs = maps.shape, len(weight)
        shape = (images, outputs, height // 2, width // 2)
        maxima = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
        places = torch.empty(shape, dtype=torch.uint8, device=maps.device, memory_format=torch.channels_last)
        _count(maps, outputs)
        call("conv_pool", "convolve_and_pool", *_sizes(maps, outputs), maps, _in_panels(weight), maxima, places)
        ctx.save_for_backward(maps, places)
        return maxima

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_maxima: Tensor) -> tuple[None, Tensor]:
        maps, places = ctx.saved_tensors
        (_, channels, *_), outputs = maps.shape, places.shape[1]
        of_maxima = of_maxima.contiguous(memory_format=torch.channels_last)
        of_filters = torch.empty(PARTS, 3, 3, channels, outputs, dtype=torch.float32, device=maps.device)
        _count(maps, outputs)
        call("conv_pool", "gradient_of_filters", *_sizes(maps, outputs), maps, of_maxima, places, of_filters)
        return None, of_filters.sum(0).permute(3, 2, 0, 1)


def _sizes(maps: Tensor, outputs: int) -> tuple[int, ...]:
    images, channels, height, width = maps.shape
    return images, height, width, channels, outputs


def _in_panels(weight: Tensor) -> Tensor:
    """Returns weight (O, C, 3, 3) in bf16, in the order in which the kernel reads it."""
    outputs, channels, *_ = weight.shape
    halves = weight.bfloat16().reshape(outputs // LANES, 2, LANES // 2, channels // 2, 2, 3, 3)
    return halves.permute(0, 5, 6, 3, 1, 2, 4).contiguous()


def _count(maps: Tensor, outputs: int) -> None:
    images, channels, height, width = maps.shape
    count_products(images, (height // 2) * (width // 2) * 4, 9 * channels, outputs)
