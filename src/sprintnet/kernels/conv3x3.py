"""Convolution3x3: large layers train on a CPU in bf16 by Winograd convolution, the first layer fused with its pooling.

Winograd convolution rounds more: a result is off by 0.6 to 3.2 %, a direct bf16 convolution by 0.3 % (LOG.md has the effect on
training). Predictions outside training use PyTorch's own convolution.
"""

from types import ModuleType

import torch
from torch import Tensor, nn

from sprintnet.kernels.dispatch import can_train, choose

MIN_BATCH = 64
"""Images below which the kernels' work per batch costs more than they save."""


class Convolution3x3(nn.Conv2d):
    """nn.Conv2d with 3x3 filters, padding 1 and no bias."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Returns features (B, out_channels, H, W)."""
        if self._trains_in_bf16(input):
            implementation = choose("conv3x3", self.in_channels, self.out_channels, *input.shape[2:])
            if implementation is not None:
                with torch.autocast("cpu", enabled=False):
                    features: Tensor = implementation.convolve(input.bfloat16(), self.weight)
                return features
        return super().forward(input)

    def forward_pooled(self, input: Tensor, pool: nn.Module) -> Tensor:
        """Returns pool(self(input)), (B, out_channels, H/2, W/2), for 2x2 max pooling; in one kernel where possible."""
        if (kernel := self.choose_conv_pool(input)) is not None:
            with torch.autocast("cpu", enabled=False):
                maxima: Tensor = kernel.convolve_and_pool(input.bfloat16(), self.weight)
        else:
            maxima = pool(self(input))
        return maxima

    def choose_conv_pool(self, input: Tensor) -> ModuleType | None:
        """Returns the kernel that takes this layer with the pooling after it, if any."""
        is_fusible = not input.requires_grad and self._trains_in_bf16(input)
        return choose("conv_pool", self.in_channels, self.out_channels, *input.shape[2:]) if is_fusible else None

    def _trains_in_bf16(self, input: Tensor) -> bool:
        """Returns whether this is training on a CPU in bf16 with a batch large enough for the kernels."""
        in_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        is_supported = self.weight.device.type == "cpu" and self.weight.dtype == torch.float32
        if not (in_bf16 and is_supported and can_train(self, input)):
            return False
        return input.shape[1] == self.in_channels and len(input) >= MIN_BATCH
