"""Tensors of the kernels: the check of what they are given, memory layouts, and the maps that they return.

Feature maps (N, C, H, W) lie in memory in one of two orders, in both of which a pixel's channels are neighbours: channels_last
(N, H, W, C), or HWNC, where one pixel of all images comes before the next pixel.
"""

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
    is_large_enough = len(maps) >= getattr(kernel, "MIN_IMAGES", 0)
    if not (is_convolution and has_gradient and on_cpu and is_large_enough and kernel.is_supported(channels, outputs, *size)):
        name = kernel.__name__.rpartition(".")[2]
        raise ValueError(f"{name}: not for maps {maps.dtype} {tuple(maps.shape)} and weight {tuple(weight.shape)}")


def round_up(channels: int, multiple: int) -> int:
    """Returns the smallest multiple that is not less."""
    return -(-channels // multiple) * multiple


def is_hwnc(maps: Tensor) -> bool:
    """Returns whether maps lie in HWNC, and not in channels_last: a single image, or a single pixel, lies in both."""
    is_channels_last = maps.is_contiguous(memory_format=torch.channels_last)
    return not is_channels_last and maps.permute(2, 3, 0, 1).is_contiguous()


def to_hwnc(maps: Tensor, multiple: int = 1) -> Tensor:
    """Returns maps in HWNC, in which the channels of each image take up a multiple of some values; a copy only where needed.

    What a copy has after the last channel is zero.
    """
    images, channels, height, width = maps.shape
    pitch = round_up(channels, multiple)
    if maps.stride() == (pitch, 1, width * images * pitch, images * pitch):
        return maps
    if pitch == channels:
        return empty_hwnc(maps.shape, maps.dtype, maps.device).copy_(maps)
    return maps.new_zeros(height, width, images, pitch)[..., :channels].permute(2, 3, 0, 1).copy_(maps)


def to_kernel_layout(maps: Tensor) -> Tensor:
    """Returns maps in one of the two layouts; a copy, in channels_last, only where it is needed."""
    return maps if is_hwnc(maps) else maps.contiguous(memory_format=torch.channels_last)


def from_hwnc(maps: Tensor) -> Tensor:
    """Returns maps in HWNC as a copy in channels_last, others as they are: for operations of PyTorch that know no HWNC."""
    return maps.contiguous(memory_format=torch.channels_last) if is_hwnc(maps) else maps


def laid_out_like(maps: Tensor, other: Tensor) -> Tensor:
    """Returns maps in the layout of others of this shape, in one of the two; a copy only where it is needed."""
    return to_hwnc(maps) if is_hwnc(other) else maps.contiguous(memory_format=torch.channels_last)


def as_one_image(maps: Tensor) -> Tensor:
    """Returns maps in HWNC as one image (1, C, H * W, N) in channels_last, for operations that treat all pixels alike."""
    images, channels, height, width = maps.shape
    return maps.permute(2, 3, 0, 1).reshape(1, height * width, images, channels).permute(0, 3, 1, 2)


def from_one_image(maps: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns the maps (N, C, H, W) of this shape, in HWNC, that were made one image."""
    images, channels, height, width = shape
    return maps.permute(0, 2, 3, 1).reshape(height, width, images, channels).permute(2, 3, 0, 1)


def empty_maps(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns maps (N, C, H, W) in channels_last, uninitialised."""
    return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)


def empty_hwnc(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, multiple: int = 1) -> Tensor:
    """Returns maps (N, C, H, W) in HWNC, uninitialised; the channels of each image take up a multiple of some values."""
    images, channels, height, width = shape
    values = torch.empty(height, width, images, round_up(channels, multiple), dtype=dtype, device=device)
    return values[..., :channels].permute(2, 3, 0, 1)


def empty_maxima(maps: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
    """Returns uninitialised maxima (N, O, H/2, W/2) of 2x2 windows, and a byte for each, in the layout of maps."""
    shape, empty = (len(maps), outputs, maps.shape[2] // 2, maps.shape[3] // 2), empty_hwnc if is_hwnc(maps) else empty_maps
    return empty(shape, maps.dtype, maps.device), empty(shape, torch.uint8, maps.device)
