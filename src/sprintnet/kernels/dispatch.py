"""Which implementation a layer takes when it trains on a CPU in bf16, chosen once for each shape."""

from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn

from sprintnet.kernels import conv_pool, winograd, winograd_torch
from sprintnet.kernels.build import BF16_LANES, FP32_LANES, load_library


def can_train(layer: nn.Module, maps: Tensor) -> bool:
    """Returns whether the mode allows kernels now: a batch of feature maps on the CPU, in training, with gradients."""
    return layer.training and torch.is_grad_enabled() and maps.device.type == "cpu" and maps.dim() == 4


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


@cache
def can_pool(channels: int, height: int, width: int) -> bool:
    """Returns whether the max pooling kernel takes feature maps of this shape."""
    return channels % BF16_LANES == 0 and min(height, width) >= 2 and load_library("max_pool") is not None


@cache
def can_fuse_silu(channels: int) -> bool:
    """Returns whether the kernel of batch norm and SiLU takes feature maps of so many channels."""
    return channels % FP32_LANES == 0 and load_library("batchnorm_silu") is not None
