"""Tensors of the kernels: the check of what they are given, and the maps that they return."""

from types import ModuleType

import torch
from torch import Tensor


def require_supported(
    kernel: ModuleType, maps: Tensor, weight: Tensor, dtype: torch.dtype, has_input_gradient: bool = True
) -> None:
    """Raises ValueError unless a kernel's module supports maps (N, C, H, W) of this dtype and fp32 weight (O, C, 3, 3)."""
    (_, channels, *size), outputs = maps.shape, len(weight)
    is_convolution = weight.shape == (outputs, channels, 3, 3) and (maps.dtype, weight.dtype) == (dtype, torch.float32)
    on_cpu = maps.device.type == weight.device.type == "cpu"
    has_gradient = has_input_gradient or not maps.requires_grad
    if not (is_convolution and has_gradient and on_cpu and kernel.is_supported(channels, outputs, *size)):
        name = kernel.__name__.rpartition(".")[2]
        raise ValueError(f"{name}: not for maps {maps.dtype} {tuple(maps.shape)} and weight {tuple(weight.shape)}")


def empty_maps(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns maps (N, C, H, W) in channels_last, uninitialised."""
    return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)


def empty_maxima(maps: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Returns uninitialised maxima (N, O, H/2, W/2) of 2x2 windows, and a byte for each."""
    shape = (len(maps), outputs, maps.shape[2] // 2, maps.shape[3] // 2)
    return empty_maps(shape, maps.dtype, maps.device), empty_maps(shape, torch.uint8, maps.device)
