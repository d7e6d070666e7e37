"""Network: the base class of both networks, features and a head that can be trained alone."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from sprintnet.models.novelty import Novelty

HEAD = ("dropout", "linear")
"""The parts that are trained where the rest is frozen."""


class Network(nn.Module, ABC):
    """Images (B, channels, H, W) -> logits (B, classes): `features`, then `embed`, then `classify`.

    `novelty` of the embeddings takes no part in training; its statistics are set afterwards.
    """

    linear: nn.Linear
    dropout: nn.Dropout | None
    novelty: Novelty
    is_frozen = False

    @property
    @abstractmethod
    def logit_scale(self) -> float:
        """The factor of the last layer's outputs."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Returns the last feature map."""

    @abstractmethod
    def embed(self, maps: Tensor) -> Tensor:
        """Returns the embeddings (B, C) of the last feature map, which the last layer classifies."""

    def classify(self, embeddings: Tensor) -> Tensor:
        """Returns logits (B, classes) of embeddings."""
        if self.dropout is not None:
            embeddings = self.dropout(embeddings)
        logits: Tensor = self.linear(embeddings)
        return logits * self.logit_scale

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (B, classes)."""
        return self.classify(self.embed(self.features(x)))

    def freeze(self) -> None:
        """Freezes everything but the head; batch norm keeps its statistics, in training too."""
        self.is_frozen = True
        for name, part in self.named_children():
            part.requires_grad_(name in HEAD)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Network":
        """Sets training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            for name, part in self.named_children():
                part.train(mode and name in HEAD)
        return self
