"""SprintNet: frozen patch whitening, three blocks of two convolutions and a residual; after airbench94 (arXiv:2404.00498).

Unlike there, the second block widens in two steps, since its first convolution, on the larger feature map, was the most
expensive layer; a seventh convolution, on the smallest feature map, costs about 5%; and the blocks use SiLU, a third of GELU's
time on a CPU.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.kernels.batchnorm import Norm
from sprintnet.kernels.conv3x3 import Convolution3x3
from sprintnet.kernels.gelu import gelu
from sprintnet.kernels.max_pool import MaxPool2x2
from sprintnet.kernels.tensors import from_hwnc
from sprintnet.models.base import LinearNetwork
from sprintnet.models.novelty import Novelty


class Convolution(Convolution3x3):
    """A 3x3 convolution without bias, initialised as the identity on its first channels (dirac initialisation)."""

    def reset_parameters(self) -> None:
        """Sets the first min(in, out) filters to the identity; the others keep PyTorch's initialisation."""
        super().reset_parameters()
        nn.init.dirac_(self.weight.data[: self.in_channels])


class Block(nn.Sequential):
    """Two convolutions; the resolution is halved after the first."""

    def __init__(self, in_channels: int, middle: int, out_channels: int):
        first = Convolution(in_channels, middle), MaxPool2x2(), Norm(middle), nn.SiLU()
        second = Convolution(middle, out_channels), Norm(out_channels), nn.SiLU()
        super().__init__(*first, *second)

    def forward(self, input: Tensor) -> Tensor:
        """Returns features (B, out_channels, H/2, W/2)."""
        layers: list[Any] = list(self)
        convolution1, pool, norm1, silu1, convolution2, norm2, silu2, *residual = layers
        features: Tensor = norm1.forward_activated(convolution1.forward_pooled(input, pool), silu1)
        features = norm2.forward_activated(convolution2(features), silu2)
        for layer in residual:
            features = layer(features)
        return features


class Residual(nn.Module):
    """A convolution with a skip connection."""

    skipped_by = ("convolution", "norm")
    activated = ("norm",)

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = Convolution(channels, channels)
        self.norm = Norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (B, channels, H, W)."""
        return self.norm.forward_activated(self.convolution(x), F.silu, skip=x)


class GlobalMaxPool2d(nn.Module):
    """The maximum of each channel; `nn.AdaptiveMaxPool2d` launches a block for each channel of each image on a GPU."""

    def forward(self, maps: Tensor) -> Tensor:
        """Returns maxima (B, C, 1, 1)."""
        return F.max_pool2d(maps, maps.shape[2:])


class SprintNet(LinearNetwork):
    """Images (B, channels, H, W) -> logits (B, classes); `whiten_from` must be called with training images before training.

    With a stride of 2, images of twice the side cost about the same.
    """

    feature_layers = ("blocks.0", "blocks.1", "blocks.2")  # from fine to coarse
    parts = ("whiten", *feature_layers, "linear")
    activated = ("whiten",)

    def __init__(
        self, classes: int, channels: int, image_size: tuple[int, int], width: int = 64, dropout: float = 0.0, stride: int = 1
    ):
        super().__init__()
        whitened = 2 * channels * 4
        self.whiten = nn.Conv2d(channels, whitened, stride + 1, stride)
        self.whiten.weight.requires_grad = False
        wide = 4 * width
        self.blocks = nn.Sequential(
            Block(whitened, width, width),
            Block(width, 2 * width, wide),
            Block(wide, wide, wide).append(Residual(wide)),
        )
        self.pool = GlobalMaxPool2d()
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.linear = nn.Linear(wide, classes, bias=False)
        self.novelty = Novelty(classes, wide)
        with torch.no_grad():
            self.linear.weight /= self.linear.weight.std()

    def whiten_from(self, images: Tensor, epsilon: float = 5e-4) -> None:
        """Sets the first layer to eigenvectors of patches of normalised images (N, C, H, W), and their negatives.

        Patches of 2x2 use all eigenvectors; larger patches, with a stride, the same number: those of the largest variance.
        """
        products, count = torch.zeros(()), 0
        side, stride = self.whiten.kernel_size[0], self.whiten.stride[0]
        for part in images.split(500):  # type: ignore[no-untyped-call]  # all patches at once take gigabytes at 64x64
            windows = part.unfold(2, side, stride).unfold(3, side, stride)  # F.unfold launches a kernel an image on a GPU
            patches = windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)  # (N * L, C * side**2)
            products, count = products.to(patches) + patches.T @ patches, count + len(patches)
        values, vectors = torch.linalg.eigh((products / count).cpu())  # ascending variance; mps has no eigh
        kept = self.whiten.out_channels // 2
        filters = (vectors / torch.sqrt(values + epsilon)).T[-kept:].reshape(-1, *self.whiten.weight.shape[1:])
        self.whiten.weight.data.copy_(torch.cat([filters, -filters]))

    @property
    def logit_scale(self) -> float:
        """The factor of the last layer's outputs."""
        return 1 / self.linear.in_features

    def features(self, x: Tensor) -> Tensor:
        """Returns the last feature map (B, 4 * width, H, W)."""
        first_convolution: Any = self.blocks.get_submodule("0.0")
        maps: Tensor = self.blocks(gelu(self.whiten(x), next_layer=first_convolution))
        return maps

    def embed(self, maps: Tensor) -> Tensor:
        """Returns the embeddings (B, 4 * width) of the last feature map: the maximum of each channel."""
        embeddings: Tensor = self.pool(from_hwnc(maps)).flatten(1)
        return embeddings
