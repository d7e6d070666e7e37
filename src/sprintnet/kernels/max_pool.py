"""Max pooling over 2x2 pixels that remembers, on a CPU in bf16, where each maximum was in a byte instead of eight."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sprintnet.kernels.build import call, load_library

LANES = 32
"""Channels that are compared at once, as in max_pool.c."""


class MaxPool2x2(nn.MaxPool2d):
    """nn.MaxPool2d(2), with a compiled kernel where it trains on a CPU in bf16."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, input: Tensor) -> Tensor:
        """Returns maxima (B, C, H/2, W/2), a last row or column without a partner left out."""
        fits = (
            self.training
            and input.dtype == torch.bfloat16
            and input.device.type == "cpu"
            and input.requires_grad
            and input.dim() == 4
        )
        if fits and input.shape[1] % LANES == 0 and min(input.shape[2:]) >= 2 and load_library("max_pool") is not None:
            maxima: Tensor = _Maxima.apply(input)  # type: ignore[no-untyped-call]
        else:
            maxima = super().forward(input)
        return maxima


class _Maxima(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        images, channels, height, width = ctx.shape = maps.shape
        shape = (images, channels, height // 2, width // 2)
        maxima = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last)
        places = torch.empty(shape, dtype=torch.uint8, device=maps.device, memory_format=torch.channels_last)
        maps = maps.contiguous(memory_format=torch.channels_last)
        call("max_pool", "max_pool", images, height, width, channels, maps, maxima, places)
        ctx.save_for_backward(places)
        return maxima

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_maxima: Tensor) -> Tensor:
        (places,), (images, channels, height, width) = ctx.saved_tensors, ctx.shape
        of_maps = torch.empty(ctx.shape, dtype=of_maxima.dtype, device=of_maxima.device, memory_format=torch.channels_last)
        of_maxima = of_maxima.contiguous(memory_format=torch.channels_last)
        call("max_pool", "max_pool_backward", images, height, width, channels, of_maxima, places, of_maps)
        return of_maps
