"""Winograd convolution in fp32, in C with the compiler's vectors (AVX2, AVX-512, NEON); like winograd.py, exact to 3e-5."""

import sys

import torch
from torch import Tensor

from sprintnet.kernels import winograd
from sprintnet.kernels.tensors import require_supported


def is_supported(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether the kernel is available and supports layers of this shape."""
    lanes = winograd.fp32_lanes()
    fits = lanes and channels % lanes == outputs % (2 * lanes) == 0
    return bool(fits) and winograd.fits_memory(channels, outputs, height, width)


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns fp32 maps (N, C, H, W) convolved with fp32 weight (O, C, 3, 3), padding 1, as (N, O, H, W) in channels_last.

    Raises ValueError for tensors that the kernel does not support.
    """
    require_supported(sys.modules[__name__], maps, weight, torch.float32)
    features: Tensor = winograd.Convolution.apply(maps, weight)  # type: ignore[no-untyped-call]
    return features
