"""Ensemble: several trained networks of one kind as one, which answers with the mean of their probabilities."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.kernels.tensors import from_hwnc
from sprintnet.models.base import Network
from sprintnet.models.novelty import Novelty


class Ensemble(Network):
    """Images (B, channels, H, W) -> logits (B, classes) of the mean of the members' probabilities; it is not trained.

    Feature maps and embeddings are those of all members, one after the other, which must have the same layers and classes.
    Lakshminarayanan et al. 2017, arXiv:1612.01474.
    """

    def __init__(self, members: Sequence[Network], *, is_multi_label: bool):
        super().__init__()
        self.members = nn.ModuleList(members)
        classes, features = members[0].novelty.shape
        self.novelty = Novelty(classes, len(members) * features)
        self.is_multi_label = is_multi_label
        self.feature_layers = members[0].feature_layers

    def working_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Returns the shape (H, W, C) of the images that each member's first layer is given."""
        return self._members[0].working_shape(image_shape)

    def layers_named(self, name: str) -> tuple[str, ...]:
        """Returns the layer of each member."""
        return tuple(f"members.{number}.{name}" for number in range(len(self.members)))

    def features(self, x: Tensor) -> Tensor:
        """Returns the last feature maps of all members (B, M * C, h, w)."""
        return torch.cat([from_hwnc(member.features(x)) for member in self._members], 1)

    def embed(self, maps: Tensor) -> Tensor:
        """Returns the embeddings of all members (B, M * C)."""
        return torch.cat([member.embed(own) for member, own in self._shares(maps)], 1)

    def classify(self, embeddings: Tensor) -> Tensor:
        """Returns the logits (B, classes) whose probabilities are the mean of the members'."""
        logits = torch.stack([member.classify(own).float() for member, own in self._shares(embeddings)])
        if self.is_multi_label:
            return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)
        return logits.log_softmax(2).logsumexp(0) - math.log(len(self.members))

    def activation_maps(self, maps: Tensor) -> Tensor:
        """Returns the mean of the members' class activation maps (B, classes, h, w)."""
        # not `mean`, which export takes for the last pooling
        return torch.stack([member.activation_maps(own) for member, own in self._shares(maps)]).sum(0) / len(self.members)

    @property
    def _members(self) -> list[Network]:
        return list(self.members)  # type: ignore[arg-type]

    def _shares(self, values: Tensor) -> list[tuple[Network, Tensor]]:
        """Returns each member with its share of the channels."""
        return list(zip(self._members, values.chunk(len(self.members), 1), strict=True))
