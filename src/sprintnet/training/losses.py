"""The training losses, with label smoothing and class weights, for logits (B, K)."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None) -> Tensor:
    """Returns the mean loss over images with targets (1 - alpha) * label + alpha / K (Szegedy et al. 2015, arXiv:1512.00567).

    Labels are classes (B,), or probabilities (B, K). With `class_weights` (K,), the loss of an image counts by the weight of
    its class, of probabilities by the mean weight.
    """
    if class_weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    # cross_entropy's own weights would also weight the smoothed part of the targets, towards rare classes
    losses = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    return (losses * (class_weights[labels] if labels.ndim == 1 else labels @ class_weights)).mean()


def binary_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None) -> Tensor:
    """Returns the loss of labels (B, K), 0 to 1, summed over labels and averaged over images; without class weights.

    Each label is smoothed as two classes are. The sum keeps the scale of the cross-entropy, to which the recipes' learning
    rates are tuned.
    """
    assert class_weights is None  # setup.py refuses them: images with several labels have no class
    targets = (1 - label_smoothing) * labels + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(labels)


LOSSES: dict[str, Callable[[Tensor, Tensor, float, Tensor | None], Tensor]] = {
    "single-label": cross_entropy,
    "multi-label": binary_cross_entropy,
}
"""Name of the task -> its loss."""
