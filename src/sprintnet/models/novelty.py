"""Novelty: how unlike the training images an image is, by the direction and the length of its embedding."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 0.01
"""Least standard deviation of the two measures: of images all but equal there is none, and rounding would be magnified."""


class Novelty(nn.Module):
    """How much less an embedding points towards the mean direction of the nearest class, and how much shorter it is, than those
    of training images.

    Both are in standard deviations of training images, z, and added as softplus(z): the one does not excuse the other.
    Directions: Techapanurak et al. 2019, arXiv:1905.10628; lengths: Park et al. 2023, arXiv:2310.05316. `fit` sets the
    statistics.
    """

    def __init__(self, classes: int, features: int):
        super().__init__()
        self.register_buffer("directions", torch.zeros(classes, features))
        self.register_buffer("means", torch.zeros(2))  # of cosine and log length
        self.register_buffer("deviations", torch.ones(2))

    @property
    def shape(self) -> tuple[int, int]:
        """The number of classes and of the features of an embedding."""
        classes, features = self.get_buffer("directions").shape
        return classes, features

    def forward(self, embeddings: Tensor) -> Tensor:
        """Returns the novelty (B,) of embeddings (B, C): more than 0, about 1.5 for training images."""
        z = (self.get_buffer("means") - self._measures(embeddings)) / self.get_buffer("deviations")
        return F.softplus(z).sum(1)

    @torch.no_grad()
    def fit(self, embeddings: Tensor, membership: Tensor) -> None:
        """Sets the statistics: from embeddings (N, C) of training images and whether each has each class (N, K)."""
        directions = F.normalize(embeddings.double())
        self.get_buffer("directions").copy_(F.normalize(membership.double().T @ directions))
        measures = self._measures(embeddings.to(self.get_buffer("means"))).double()
        self.get_buffer("means").copy_(measures.mean(0))
        self.get_buffer("deviations").copy_(measures.std(0, correction=0).clamp(min=SMALLEST))

    def _measures(self, embeddings: Tensor) -> Tensor:
        """Returns the cosine of each embedding with the nearest direction, and the logarithm of its length (B, 2)."""
        lengths = embeddings.norm(dim=1).clamp(min=1e-12)
        cosines = (embeddings @ self.get_buffer("directions").T).amax(1) / lengths
        return torch.stack([cosines, lengths.log()], 1)
