"""DavidNet, the article's network: https://github.com/davidcpage/cifar10-fast with the pooling before the norm."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.kernels.batchnorm import BatchNorm2d
from sprintnet.kernels.conv3x3 import Convolution3x3
from sprintnet.kernels.max_pool import MaxPool2x2
from sprintnet.kernels.tensors import from_hwnc
from sprintnet.models.base import LinearNetwork
from sprintnet.models.novelty import Novelty


class WyConv2d(nn.Module):
    """A 3x3 convolution without bias, under the article's name for it."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = Convolution3x3(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (B, out_channels, H, W)."""
        features: Tensor = self.conv(x)
        return features

    def forward_pooled(self, x: Tensor, pool: nn.Module) -> Tensor:
        """Returns pool(self(x)), (B, out_channels, H/2, W/2)."""
        # by self(x) where no kernel is taken, so that hooks on this module see it (the article's table)
        maxima: Tensor = pool(self(x)) if self.conv.choose_conv_pool(x) is None else self.conv.forward_pooled(x, pool)
        return maxima


class WyLayer(nn.Sequential):
    """A convolution, max pooling or none, batch norm and ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns features (B, out_channels, H, W), or of half the size."""
        layers: list[Any] = list(self)
        convolution, *pool, norm, relu = layers
        features = convolution.forward_pooled(input, *pool) if pool else convolution(input)
        activated: Tensor = norm.forward_activated(features, relu)
        return activated


class WyBlock(nn.Module):
    """Halves the resolution, then a residual branch of two convolutions: out = x + f(x), one skip."""

    skipped_by = ("residual_conv1", "residual_norm1", "residual_conv2", "residual_norm2")
    activated = ("norm", "residual_norm1", "residual_norm2")

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = WyConv2d(in_channels, out_channels)
        self.pool = MaxPool2x2()
        self.norm = BatchNorm2d(out_channels)
        self.residual_conv1 = WyConv2d(out_channels, out_channels)
        self.residual_norm1 = BatchNorm2d(out_channels)
        self.residual_conv2 = WyConv2d(out_channels, out_channels)
        self.residual_norm2 = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (B, out_channels, H/2, W/2)."""
        x = self.norm.forward_activated(self.conv.forward_pooled(x, self.pool), F.relu)
        residual = self.residual_norm1.forward_activated(self.residual_conv1(x), F.relu)
        return x + self.residual_norm2.forward_activated(self.residual_conv2(residual), F.relu)


class View(nn.Module):
    """Flattens (B, C, 1, 1) to (B, C), under the article's name for it."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (B, C)."""
        return torch.flatten(x, 1)


class DavidNet(LinearNetwork):
    """Images (B, channels, H, W) -> logits (B, classes), scaled by 0.125."""

    feature_layers = ("block1", "transition", "block2")  # from fine to coarse; Grad-CAM shows the last
    parts = ("prepare", *feature_layers, "linear")

    def __init__(self, classes: int, channels: int, image_size: tuple[int, int], width: int = 64, dropout: float = 0.0):
        super().__init__()
        self.prepare = WyLayer(WyConv2d(channels, width), BatchNorm2d(width), nn.ReLU())
        self.block1 = WyBlock(width, 2 * width)
        self.transition = WyLayer(WyConv2d(2 * width, 4 * width), MaxPool2x2(), BatchNorm2d(4 * width), nn.ReLU())
        self.block2 = WyBlock(4 * width, 8 * width)
        self.pool = nn.MaxPool2d((image_size[0] // 8, image_size[1] // 8))
        self.view = View()
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.linear = nn.Linear(8 * width, classes)
        self.novelty = Novelty(classes, 8 * width)

    @property
    def logit_scale(self) -> float:
        """The factor of the last layer's outputs, the article's."""
        return 0.125

    def features(self, x: Tensor) -> Tensor:
        """Returns the last feature map (B, 8 * width, H/8, W/8)."""
        maps: Tensor = self.block2(self.transition(self.block1(self.prepare(x))))
        return maps

    def embed(self, maps: Tensor) -> Tensor:
        """Returns the embeddings (B, 8 * width) of the last feature map: the maximum of each channel."""
        embeddings: Tensor = self.view(self.pool(from_hwnc(maps)))
        return embeddings
