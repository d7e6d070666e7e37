"""Network: what all networks have in common; LinearNetwork: one with a last layer, which can be trained alone."""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from sprintnet.models.novelty import Novelty

HEAD = ("dropout", "linear")
"""The parts that are trained where the rest is frozen."""


class Network(nn.Module, ABC):
    """Images (B, channels, H, W) -> logits (B, classes): `features`, then `embed`, then `classify`.

    `novelty` of the embeddings takes no part in training; its statistics are set afterwards.
    """

    novelty: Novelty
    feature_layers: tuple[str, ...]
    """The layers that Grad-CAM shows, from fine to coarse."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Returns the last feature map."""

    @abstractmethod
    def embed(self, maps: Tensor) -> Tensor:
        """Returns the embeddings (B, C) of the last feature map."""

    @abstractmethod
    def classify(self, embeddings: Tensor) -> Tensor:
        """Returns logits (B, classes) of embeddings."""

    @abstractmethod
    def activation_maps(self, maps: Tensor) -> Tensor:
        """Returns class activation maps (B, classes, h, w) of the last feature map: Grad-CAM in closed form."""

    def working_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Returns the shape (H, W, C) of the images that the first layer is given."""
        return image_shape

    def layers_named(self, name: str) -> tuple[str, ...]:
        """Returns the submodules that a layer's name stands for: itself; of an ensemble, that of each member."""
        return (name,)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (B, classes)."""
        return self.classify(self.embed(self.features(x)))


class LinearNetwork(Network):
    """A network whose last layer is linear; it can be trained alone."""

    parts: tuple[str, ...]
    """The parts that have parameters, from the image to the logits."""
    linear: nn.Linear
    dropout: nn.Dropout | None
    is_frozen = False
    keeps_statistics = False
    """Whether batch norm keeps its statistics in training: those of pretraining, where batches are few and small."""

    @property
    @abstractmethod
    def logit_scale(self) -> float:
        """The factor of the last layer's outputs."""

    def classify(self, embeddings: Tensor) -> Tensor:
        """Returns logits (B, classes) of embeddings."""
        if self.dropout is not None:
            embeddings = self.dropout(embeddings)
        logits: Tensor = self.linear(embeddings)
        return logits * self.logit_scale

    def activation_maps(self, maps: Tensor) -> Tensor:
        """Returns class activation maps (B, classes, h, w) of the last feature map (B, C, h, w).

        Through max-pool and linear, the gradient of a class's logit averaged over the feature map is the class's weight divided
        by the map's area.
        """
        weights = self.linear.weight * (self.logit_scale / maps[0, 0].numel())
        return F.relu(F.conv2d(maps, weights[:, :, None, None]))

    def part_of(self, parameter: str) -> int:
        """Returns the number, from 0, of the part that has a parameter of this name."""
        return next(number for number, part in enumerate(self.parts) if parameter.startswith(f"{part}."))

    def freeze(self) -> None:
        """Freezes everything but the head; batch norm keeps its statistics, in training too."""
        self.is_frozen = True
        for name, part in self.named_children():
            part.requires_grad_(name in HEAD)
        self.train(self.training)

    def train(self, mode: bool = True) -> "LinearNetwork":
        """Sets training or evaluation mode; frozen parts, and statistics that are kept, stay in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            for name, part in self.named_children():
                part.train(mode and name in HEAD)
        if self.keeps_statistics:
            for layer in self.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self
