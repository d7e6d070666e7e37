"""SprintNet: frozen patch whitening, three pairs of convolutions and a residual one; after airbench94 (arXiv:2404.00498).

Unlike there, the second block widens in two steps, since its first convolution, on the larger map, was the dearest of all; a
seventh convolution, on the smallest map, costs about 5 %; and the blocks have SiLU, a third of GELU's time on a CPU.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.kernels.batchnorm_silu import Norm
from sprintnet.kernels.conv3x3 import Convolution3x3
from sprintnet.kernels.max_pool import MaxPool2x2
from sprintnet.models.base import Network


class Convolution(Convolution3x3):
    """A 3x3 convolution without bias that begins as the identity on its first channels (dirac initialisation)."""

    def reset_parameters(self) -> None:
        """Sets the first min(in, out) filters to pass their channel on; the others keep PyTorch's initialisation."""
        super().reset_parameters()
        nn.init.dirac_(self.weight.data[: self.in_channels])


class Block(nn.Sequential):
    """Two convolutions; the map is halved after the first."""

    def __init__(self, in_channels: int, middle: int, out_channels: int):
        super().__init__(
            Convolution(in_channels, middle),
            MaxPool2x2(),
            Norm(middle),
            nn.SiLU(),
            Convolution(middle, out_channels),
            Norm(out_channels),
            nn.SiLU(),
        )

    def forward(self, input: Tensor) -> Tensor:
        """Returns features (B, out_channels, H/2, W/2)."""
        layers = iter(self)
        for layer in layers:
            if isinstance(layer, Norm) and layer.can_fuse_silu(input):
                input = layer.silu(input)
                next(layers)  # SiLU
            elif isinstance(layer, Convolution) and layer is self[0] and layer.can_fuse_pool(input):
                input = layer.conv_pool(input)
                next(layers)  # MaxPool2x2
            else:
                input = layer(input)
        return input


class Residual(nn.Module):
    """A convolution whose result is added to what it came from."""

    skipped_by = ("convolution", "norm")

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = Convolution(channels, channels)
        self.norm = Norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (B, channels, H, W)."""
        return F.silu(x + self.norm(self.convolution(x)))


class SprintNet(Network):
    """Images (B, channels, H, W) -> logits (B, classes); `whiten_from` must see training images before the first step.

    A stride of 2 looks at every second pixel both ways, so that images of twice the side cost the same.
    """

    feature_layers = ("blocks.0", "blocks.1", "blocks.2")  # from fine maps to coarse ones

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
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.linear = nn.Linear(wide, classes, bias=False)
        with torch.no_grad():
            self.linear.weight /= self.linear.weight.std()

    def whiten_from(self, images: Tensor, epsilon: float = 5e-4) -> None:
        """Sets the first layer to eigenvectors of patches of normalised images (N, C, H, W), and their negatives.

        All of them for patches of 2x2; of the larger ones that a stride has, as many: those of the largest variance.
        """
        products, count = torch.zeros(()), 0
        side = self.whiten.kernel_size[0]
        for part in images.split(500):  # type: ignore[no-untyped-call]  # all patches at once take gigabytes at 64x64
            patches = F.unfold(part, side, stride=self.whiten.stride).transpose(1, 2).flatten(0, 1)  # (N * L, C * side**2)
            products, count = products.to(patches) + patches.T @ patches, count + len(patches)
        values, vectors = torch.linalg.eigh(products / count)  # rising variance
        kept = self.whiten.out_channels // 2
        filters = (vectors / torch.sqrt(values + epsilon)).T[-kept:].reshape(-1, *self.whiten.weight.shape[1:])
        self.whiten.weight.data.copy_(torch.cat([filters, -filters]))

    @property
    def logit_scale(self) -> float:
        """What the last layer's outputs are multiplied by."""
        return 1 / self.linear.in_features

    def features(self, x: Tensor) -> Tensor:
        """Returns the last map (B, 4 * width, H, W)."""
        maps: Tensor = self.blocks(F.gelu(self.whiten(x)))
        return maps

    def classify(self, maps: Tensor) -> Tensor:
        """Returns logits (B, classes) of the last map: its maxima, weighed."""
        x = self.pool(maps).flatten(1)
        if self.dropout is not None:
            x = self.dropout(x)
        logits: Tensor = self.linear(x)
        return logits * self.logit_scale
