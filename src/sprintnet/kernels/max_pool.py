"""2x2 max pooling that keeps, on a CPU, the index of each maximum as a byte instead of eight."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sprintnet.kernels import dispatch
from sprintnet.kernels.build import call
from sprintnet.kernels.tensors import empty_maps, empty_maxima


class MaxPool2x2(nn.MaxPool2d):
    """nn.MaxPool2d(2), in a C kernel where it trains on a CPU."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, input: Tensor) -> Tensor:
        """Returns maxima (B, C, H/2, W/2); an odd last row or column is left out."""
        if input.requires_grad and dispatch.can_train(self, input):
            library = dispatch.pooling_library(input.dtype, *input.shape[1:])
            if library is not None:
                maxima: Tensor = _MaxPool.apply(input, library)  # type: ignore[no-untyped-call]
                return maxima
        output: Tensor = super().forward(input)
        return output


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, library: str) -> Tensor:
        ctx.library = library
        images, channels, height, width = ctx.shape = maps.shape
        maxima, indices = empty_maxima(maps, channels)
        maps = maps.contiguous(memory_format=torch.channels_last)
        call(library, "max_pool", images, height, width, channels, maps, maxima, indices)
        ctx.save_for_backward(indices)
        return maxima

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        (indices,), (images, channels, height, width) = ctx.saved_tensors, ctx.shape
        grad_input = empty_maps(ctx.shape, grad_output.dtype, grad_output.device)
        grad_output = grad_output.contiguous(memory_format=torch.channels_last)
        call(ctx.library, "max_pool_backward", images, height, width, channels, grad_output, indices, grad_input)
        return grad_input, None
