"""Novelty: how unlike the training images an image is, by the direction of its embedding."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHRINKAGE = 0.01
"""Share of the mean variance that is added to each direction's: with few images, some directions have next to none."""

SMALLEST = 1e-6
"""Least variance of a direction: of images all but equal there is none, and single precision would be magnified."""


class Novelty(nn.Module):
    """The squared Mahalanobis distance of an embedding's direction from that of the nearest class, divided by its dimensions.

    Lee et al. 2018 (arXiv:1807.03888) on embeddings of length 1 (Mueller and Hein 2025, arXiv:2505.18032): the length of an
    embedding says more about contrast than about content. Class means and the covariance that all classes share are those of
    training images; `fit` sets them.
    """

    def __init__(self, classes: int, features: int):
        super().__init__()
        self.register_buffer("means", torch.zeros(classes, features))
        self.register_buffer("whitening", torch.zeros(features, features))

    @property
    def shape(self) -> tuple[int, int]:
        """The number of classes and of the features of an embedding."""
        classes, features = self.get_buffer("means").shape
        return classes, features

    def forward(self, embeddings: Tensor) -> Tensor:
        """Returns the novelty (B,) of embeddings (B, C): 0 or more, about 1 for training images."""
        means, whitening = self.get_buffer("means"), self.get_buffer("whitening")
        whitened = F.normalize(embeddings) @ whitening
        # The nearest by a product, as differences from all take (B, K, C) values; its distance by differences, as the
        # product's large terms cancel.
        nearest = ((means**2).sum(1) - 2 * whitened @ means.T).argmin(1)
        return ((whitened - means[nearest]) ** 2).mean(1)

    @torch.no_grad()
    def fit(self, embeddings: Tensor, membership: Tensor) -> None:
        """Sets the statistics: from embeddings (N, C) of training images and whether each has each class (N, K), on the CPU."""
        directions, has = F.normalize(embeddings.double()), membership.double()
        means = (has.T @ directions) / has.sum(0).clamp(min=1)[:, None]
        image, label = membership.nonzero(as_tuple=True)
        rest = directions[image] - means[label]
        covariance = rest.T @ rest / len(rest)
        values, vectors = torch.linalg.eigh(covariance)
        scales = (values.clamp(min=0) + SHRINKAGE * values.mean()).clamp(min=SMALLEST)
        whitening = vectors / torch.sqrt(scales)
        self.get_buffer("means").copy_(means @ whitening)
        self.get_buffer("whitening").copy_(whitening)
