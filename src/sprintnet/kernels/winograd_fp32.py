"""Winograd convolution in fp32, in C with the compiler's vectors (AVX2, AVX-512); like winograd.py, exact to 1e-5."""

import torch
from torch import Tensor

from sprintnet.kernels import winograd


def is_supported(channels: int, outputs: int, height: int, width: int) -> bool:
    """Returns whether the kernel is available and supports layers of this shape."""
    lanes = winograd.fp32_lanes()
    fits = lanes and channels % lanes == outputs % (2 * lanes) == 0
    return bool(fits) and winograd.fits_memory(channels, outputs, height, width)


def convolve(maps: Tensor, weight: Tensor) -> Tensor:
    """Returns fp32 maps (N, C, H, W) convolved with fp32 weight (O, C, 3, 3), padding 1, as (N, O, H, W) in channels_last.

    Raises ValueError for tensors that the kernel does not support.
    """
    (_, channels, *size), outputs = maps.shape, len(weight)
    is_fp32_on_cpu = all((tensor.device.type, tensor.dtype) == ("cpu", torch.float32) for tensor in (maps, weight))
    if not (weight.shape == (outputs, channels, 3, 3) and is_fp32_on_cpu and is_supported(channels, outputs, *size)):
        raise ValueError(f"winograd_fp32: not for maps {maps.dtype} {tuple(maps.shape)} and weight {tuple(weight.shape)}")
    features: Tensor = winograd.Convolution.apply(maps, weight)  # type: ignore[no-untyped-call]
    return features
