"""EfficientNet-Lite0: inverted residuals of depthwise convolutions, without squeeze-and-excitation; arXiv:1905.11946.

Of the Lite variants (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite): ReLU6 for Swish, a first
layer and a last one of fixed width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.kernels.batchnorm import BatchNorm2d
from sprintnet.models.backbone import Backbone


class Stage(NamedTuple):
    """Blocks of one width: their number, the side of their kernel, the step of the first, expansion, channels of the result."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM, EMBEDDING = 32, 1280
STAGES = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112), Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320),
)  # fmt: skip


class ConvNorm(nn.Module):
    """A convolution without bias, padded as TensorFlow's `same`, and batch norm; ReLU6 where `is_activated`."""

    def __init__(
        self, channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, is_activated: bool = True
    ):
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0  # `same` is symmetric here; with a step, see forward
        self.conv = nn.Conv2d(channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
        self.norm = BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
        self.is_activated = is_activated
        self.activated = ("norm",) if is_activated else ()

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if stride > 1:
            (top, bottom), (left, right) = (_same_padding(side, kernel, stride) for side in x.shape[2:])
            x = F.pad(x, (left, right, top, bottom))
        # not where the layers are listed (no_grad) or exported
        is_watched = torch.compiler.is_compiling() or not (torch.is_grad_enabled() or torch.is_inference_mode_enabled())
        is_folded = not self.norm.training and not is_watched
        features: Tensor = self._folded(x) if is_folded else self.norm(self.conv(x))
        return F.relu6(features, inplace=is_folded) if self.is_activated else features

    def _folded(self, x: Tensor) -> Tensor:
        """Returns norm(conv(x)) by a convolution alone, with statistics that stay: two thirds of the time."""
        norm, conv = self.norm, self.conv
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        weight = conv.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, shift, conv.stride, conv.padding, groups=conv.groups)


class InvertedResidual(nn.Module):
    """A 1x1 convolution that widens, a depthwise one, a 1x1 convolution that narrows; a skip where the shape stays."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = expansion * channels
        self.expand = ConvNorm(channels, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, out_channels, 1, is_activated=False)
        self.skipped_by = ("expand", "depthwise", "project") if stride == 1 and channels == out_channels else ()

    def forward(self, x: Tensor) -> Tensor:
        """Returns features (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        features: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + features if self.skipped_by else features


class EfficientNetLite0(Backbone):
    """Images (B, channels, H, W) -> logits (B, classes). Images with a side below `enlarge_to` are enlarged to it first."""

    feature_layers = ("stages.2", "stages.4", "head")  # from fine to coarse
    parts = ("stem", *(f"stages.{stage}" for stage in range(len(STAGES))), "head", "linear")

    def __init__(self, classes: int, channels: int, dropout: float = 0.0, enlarge_to: int = 0):
        super().__init__(enlarge_to)
        self.stem = ConvNorm(channels, STEM, 3, 2)
        stages, width = [], STEM
        for stage in STAGES:
            blocks = []
            for number in range(stage.blocks):
                stride = 1 if number else stage.stride
                blocks.append(InvertedResidual(width, stage.channels, stage.kernel, stride, stage.expansion))
                width = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = ConvNorm(width, EMBEDDING, 1)
        self.add_head(classes, EMBEDDING, dropout)

    def maps(self, x: Tensor) -> Tensor:
        """Returns the last feature map (B, 1280, ceil(H / 32), ceil(W / 32))."""
        maps: Tensor = self.head(self.stages(self.stem(x)))
        return maps


def _same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns the zeros before and after a side, of which TensorFlow's `same` puts the odd one after."""
    zeros = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    return zeros // 2, zeros - zeros // 2
