"""A 3x3 convolution whose weight gradient on a CPU is taken over film strips: images side by side, a blank column between them.

The gradient of the weights is a sum over images and positions, and CPU kernels run along the rows of a map. The rows of a small
map are too short to fill them; side by side, the images of a batch make long ones. The sum is the same.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDEST = 7
"""Pixels: alone, narrower maps gain 10 % to 170 %, wider ones nothing (LOG.md has the figures)."""
LONGEST = 20
"""Images a strip at most; 8 to 100 are much alike."""


class Convolution3x3(nn.Conv2d):
    """nn.Conv2d with 3x3 filters, padding 1 and no bias."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Returns features (B, out_channels, H, W)."""
        in_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        is_small = input.shape[3] <= WIDEST and strip_length(len(input)) > 1
        if input.device.type == "cpu" and in_bf16 and is_small and torch.is_grad_enabled():
            features: Tensor = _OnStrips.apply(input.bfloat16(), self.weight.bfloat16())  # type: ignore[no-untyped-call]
            return features
        return super().forward(input)


def strip_length(images: int) -> int:
    """Returns how many images lie side by side: the most, up to LONGEST, that divide them evenly."""
    return next(length for length in range(min(LONGEST, images), 0, -1) if images % length == 0)


def lay_on_strips(maps: Tensor) -> Tensor:
    """Returns maps (B, C, H, W) as strips (B / n, C, H, n * (W + 1)) in channels_last, a column of zeros after each image."""
    count, channels, height, width = maps.shape
    length = strip_length(count)
    strips = maps.new_zeros(count // length, height, length, width + 1, channels)
    strips[:, :, :, :width] = maps.permute(0, 2, 3, 1).reshape(-1, length, height, width, channels).transpose(1, 2)
    return strips.flatten(2, 3).permute(0, 3, 1, 2)


class _OnStrips(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, maps: Tensor, weight: Tensor) -> Tensor:
        context.save_for_backward(maps, weight)
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(maps, weight, padding=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        maps, weight = context.saved_tensors
        of_maps, _, _ = _gradients(gradient, maps, weight, [context.needs_input_grad[0], False, False])
        _, of_weight, _ = _gradients(lay_on_strips(gradient), lay_on_strips(maps), weight, [False, True, False])
        return of_maps, of_weight


def _gradients(gradient: Tensor, maps: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Any, Any, Any]:
    one = [1, 1]
    found: tuple[Any, Any, Any] = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, one, one, one, False, [0, 0], 1, wanted
    )
    return found
