"""2x2 max pooling that keeps, on a CPU, the index of each maximum as a byte instead of eight."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sprintnet.kernels import dispatch
from sprintnet.kernels.build import call
from sprintnet.kernels.tensors import empty_hwnc, empty_maps, empty_maxima, is_hwnc, laid_out_like, to_kernel_layout


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
        ctx.library, ctx.shape, maps = library, maps.shape, to_kernel_layout(maps)
        ctx.empty = empty_hwnc if is_hwnc(maps) else empty_maps  # maxima may lie in both layouts
        maxima, indices = empty_maxima(maps, maps.shape[1])
        call(library, "max_pool", *_sizes(maps), maps, maxima, indices)
        ctx.save_for_backward(indices)
        return maxima

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved_tensors
        grad_input = ctx.empty(ctx.shape, grad_output.dtype, grad_output.device)
        call(ctx.library, "max_pool_backward", *_sizes(grad_input), laid_out_like(grad_output, indices), indices, grad_input)
        return grad_input, None


def _sizes(maps: Tensor) -> tuple[int, int, int, int]:
    """Returns images, height, width, channels; maps in HWNC are one image with the channels of all."""
    images, channels, height, width = maps.shape
    return (1, height, width, images * channels) if is_hwnc(maps) else (images, height, width, channels)
