"""Figures of a split from its logits and labels, in NumPy."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


def log_probabilities(logits: Floats) -> Floats:
    """Returns the logarithm of the softmax over classes, (N, K) in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def cross_entropy(logits: Floats, labels: Ints, label_smoothing: float = 0.0) -> float:
    """Returns the mean cross-entropy, in nats, to the targets (1 - alpha) * one_hot + alpha / K."""
    log_p = log_probabilities(logits)
    true_class = log_p[np.arange(len(labels)), labels]
    return float(-((1 - label_smoothing) * true_class + label_smoothing * log_p.mean(axis=1)).mean())


def top_k_accuracy(logits: Floats, labels: Ints, k: int) -> float:
    """Returns the share of images, 0..1, whose label is among the k largest logits (ties go to the lower class)."""
    largest = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return float((largest == labels[:, None]).any(axis=1).mean())


def confusion_matrix(logits: Floats, labels: Ints) -> Ints:
    """Returns counts (K, K): row the true class, column the predicted one."""
    classes = logits.shape[1]
    pairs = labels * classes + logits.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def summarise(logits: Floats, labels: Ints, classes: tuple[str, ...]) -> dict[str, Any]:
    """Returns the figures that metrics.json keeps of a split; shares are 0..1, a class without images has accuracy None."""
    confusion = confusion_matrix(logits, labels)
    support = confusion.sum(axis=1)
    recall = [float(hit / count) if count else None for hit, count in zip(confusion.diagonal(), support, strict=True)]
    return {
        "images": len(labels),
        "accuracy": top_k_accuracy(logits, labels, 1),
        "top5_accuracy": top_k_accuracy(logits, labels, 5),
        "cross_entropy": cross_entropy(logits, labels),
        "class_accuracy": dict(zip(classes, recall, strict=True)),
        "confusion": confusion.tolist(),
    }
