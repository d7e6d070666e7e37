"""A 3x3 convolution whose large layers train on a CPU in bf16 with fewer products, and the first one with its pooling.

The price of fewer products is rounding: a result is off by 0.6 to 3.2 %, a convolution's own by 0.3 % (LOG.md has what training
makes of it). Predictions outside training are PyTorch's own.
"""

import torch
from torch import Tensor, nn

from sprintnet.kernels import conv_pool, winograd, winograd_torch

MIN_BATCH = 64
"""With fewer, what kernels do once a batch costs what they save."""


class Convolution3x3(nn.Conv2d):
    """nn.Conv2d with 3x3 filters, padding 1 and no bias; trained on a CPU in bf16, it takes fewer products."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Returns features (B, out_channels, H, W)."""
        if self._trains_in_bf16(input):
            for way in (winograd, winograd_torch):
                if way.is_profitable(self.in_channels, self.out_channels, *input.shape[2:]):
                    with torch.autocast("cpu", enabled=False):
                        features: Tensor = way.convolve(input.bfloat16(), self.weight)
                    return features
        return super().forward(input)

    def can_fuse_pool(self, input: Tensor) -> bool:
        """Returns whether a kernel may take this layer and max pooling after it in one: else they are two."""
        fits = self._trains_in_bf16(input) and not input.requires_grad
        return fits and conv_pool.is_supported(self.in_channels, self.out_channels, *input.shape[2:])

    def conv_pool(self, input: Tensor) -> Tensor:
        """Returns the maxima (B, out_channels, H/2, W/2) of 2x2 of the features' pixels, where `can_fuse_pool` allows."""
        with torch.autocast("cpu", enabled=False):
            maxima: Tensor = conv_pool.convolve_and_pool(input.bfloat16(), self.weight)
        return maxima

    def _trains_in_bf16(self, input: Tensor) -> bool:
        """Returns whether this is training on a CPU in bf16 with images enough for kernels."""
        in_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        on_cpu = input.device.type == self.weight.device.type == "cpu"
        is_trained = self.training and torch.is_grad_enabled() and in_bf16 and on_cpu and self.weight.dtype == torch.float32
        return is_trained and input.dim() == 4 and input.shape[1] == self.in_channels and len(input) >= MIN_BATCH
