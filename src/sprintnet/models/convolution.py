"""A 3x3 convolution whose large layers train on a CPU in bf16 with fewer products.

The price is rounding: a result is off by 0.6 to 3.2 %, a convolution's own by 0.3 % (LOG.md has what training makes of it).
Answers outside training are PyTorch's own.
"""

import torch
from torch import Tensor, nn

from sprintnet.models import winograd, winograd_plain

FEWEST_IMAGES = 64
"""With fewer the filters' transforms, made once a batch, cost what the products save."""


class Convolution3x3(nn.Conv2d):
    """nn.Conv2d with 3x3 filters, padding 1 and no bias; trained on a CPU in bf16, it takes fewer products."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Returns features (B, out_channels, H, W)."""
        in_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        is_trained = self.training and torch.is_grad_enabled() and input.device.type == "cpu" and in_bf16
        if is_trained and input.dim() == 4 and input.shape[1] == self.in_channels:
            images, _, *size = input.shape
            if images >= FEWEST_IMAGES:
                for way in (winograd, winograd_plain):
                    if way.pays(self.in_channels, self.out_channels, *size):
                        with torch.autocast("cpu", enabled=False):
                            features: Tensor = way.convolve(input.bfloat16(), self.weight)
                        return features
        return super().forward(input)
