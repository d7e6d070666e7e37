"""Backbone: a network for photographs, which enlarges small images and whose embedding is the mean of its last feature map."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.models.base import LinearNetwork
from sprintnet.models.novelty import Novelty


class Backbone(LinearNetwork):
    """Images (B, channels, H, W) -> logits (B, classes). Images with a side below `enlarge_to` are enlarged to it first."""

    logit_scale = 1.0

    def __init__(self, enlarge_to: int):
        super().__init__()
        self.enlarge_to = enlarge_to

    def add_head(self, classes: int, embedding: int, dropout: float) -> None:
        """Adds the last layer, for embeddings of this many channels: after the others, in whose order layers are listed."""
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.linear = nn.Linear(embedding, classes)
        self.novelty = Novelty(classes, embedding)

    @abstractmethod
    def maps(self, x: Tensor) -> Tensor:
        """Returns the last feature map (B, embedding, h, w) of images that are large enough."""

    def features(self, x: Tensor) -> Tensor:
        """Returns the last feature map (B, embedding, h, w)."""
        height, width = x.shape[2:]
        if min(height, width) < self.enlarge_to:
            size = self.working_shape((height, width, x.shape[1]))[:2]
            x = F.interpolate(x, size, mode="bilinear", align_corners=False)
        return self.maps(x)

    def working_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Returns the shape (H, W, C) of images after enlarging."""
        height, width, channels = image_shape
        factor = max(1.0, self.enlarge_to / min(height, width))
        return round(height * factor), round(width * factor), channels

    def embed(self, maps: Tensor) -> Tensor:
        """Returns the embeddings (B, embedding) of the last feature map: the mean of each channel."""
        return torch.mean(maps, dim=(2, 3))
