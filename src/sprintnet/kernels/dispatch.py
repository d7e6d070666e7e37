"""Which implementation a 3x3 convolution takes when it trains on a CPU in bf16, chosen once for each layer shape."""

from functools import cache
from types import ModuleType

from sprintnet.kernels import conv_pool, winograd, winograd_torch


@cache
def choose_conv3x3(channels: int, out_channels: int, height: int, width: int) -> ModuleType | None:
    """Returns the module whose `convolve` to use: the C kernel, Winograd in PyTorch's operations, or None (PyTorch's own)."""
    for implementation in (winograd, winograd_torch):
        if implementation.is_profitable(channels, out_channels, height, width):
            return implementation
    return None


@cache
def can_fuse_conv_pool(channels: int, out_channels: int, height: int, width: int) -> bool:
    """Returns whether the fused kernel takes a convolution with max pooling after it."""
    return conv_pool.is_supported(channels, out_channels, height, width)
