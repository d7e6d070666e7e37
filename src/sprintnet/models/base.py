"""What both networks are: features, then a head, which can be trained alone."""

from torch import Tensor, nn

HEAD = ("dropout", "linear")
"""What is trained where the rest is frozen."""


class Network(nn.Module):
    """Images (B, channels, H, W) -> logits (B, classes): `classify` of `features`."""

    linear: nn.Linear
    is_frozen = False

    def features(self, x: Tensor) -> Tensor:
        """Returns the last map."""
        raise NotImplementedError

    def classify(self, maps: Tensor) -> Tensor:
        """Returns logits (B, classes) of the last map."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (B, classes)."""
        return self.classify(self.features(x))

    def freeze(self) -> None:
        """Leaves nothing but the head to be trained; batch norm keeps to its statistics, in training too."""
        self.is_frozen = True
        for name, part in self.named_children():
            part.requires_grad_(name in HEAD)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Network":
        """Sets training mode, or evaluation; what is frozen always evaluates."""
        super().train(mode)
        if self.is_frozen:
            for name, part in self.named_children():
                part.train(mode and name in HEAD)
        return self
