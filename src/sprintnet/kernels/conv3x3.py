"""Convolution3x3 computes on a CPU by the fastest implementation for its shape, the first layer fused with its pooling.

Winograd convolution in bf16 rounds more: a result is off by 0.6 to 3.2 %, a direct convolution by 0.3 % (LOG.md has the effect
on training). Predictions in bf16 therefore use PyTorch's own convolution; in fp32, where it is exact to 3e-5, the same kernels.
"""

from types import ModuleType

import torch
from torch import Tensor, nn

from sprintnet.kernels.dispatch import can_predict, can_train, choose

MIN_BATCH = {torch.float32: 32, torch.bfloat16: 64}
"""Images below which the kernels' work per batch costs more than they save (fp32: as measured on AVX2)."""


class Convolution3x3(nn.Conv2d):
    """nn.Conv2d with 3x3 filters, padding 1 and no bias."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Returns features (B, out_channels, H, W)."""
        if (kernel := self._choose("conv3x3", input)) is None:
            return super().forward(input)
        maps = input.to(_dtype())
        with torch.autocast("cpu", enabled=False):
            features: Tensor = kernel.convolve(maps, self.weight)
        return features

    def forward_pooled(self, input: Tensor, pool: nn.Module) -> Tensor:
        """Returns pool(self(input)), (B, out_channels, H/2, W/2), for 2x2 max pooling; in one kernel where possible."""
        if (kernel := self.choose_conv_pool(input)) is None:
            return pool(self(input))  # type: ignore[no-any-return]
        maps = input.to(_dtype())
        with torch.autocast("cpu", enabled=False):
            maxima: Tensor = kernel.convolve_and_pool(maps, self.weight)
        return maxima

    def choose_conv_pool(self, input: Tensor) -> ModuleType | None:
        """Returns the kernel that takes this layer with the pooling after it, if any."""
        kernel = self._choose("conv_pool", input)
        return None if kernel is None or input.requires_grad > kernel.HAS_INPUT_GRADIENT else kernel

    def _choose(self, layer: str, input: Tensor) -> ModuleType | None:
        """Returns the kernel for a batch on a CPU that is large enough, if there is a faster one than PyTorch's."""
        is_supported = self.weight.device.type == "cpu" and self.weight.dtype == torch.float32
        if not (is_supported and (can_train(self, input) or can_predict(self, input))) or input.shape[1] != self.in_channels:
            return None
        dtype = _dtype()
        if len(input) < MIN_BATCH.get(dtype, 0) or input.dtype == torch.float64:
            return None
        return choose(layer, dtype, self.in_channels, self.out_channels, *input.shape[2:], is_training=self.training)


def _dtype() -> torch.dtype:
    """Returns the number format in which layers compute now on a CPU: that of autocast, or fp32."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
