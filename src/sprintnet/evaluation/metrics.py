"""Figures of a split from its logits and labels, in NumPy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

NORMAL_95 = 1.959963984540054
"""Half the width of the standard normal's 95 % interval."""


def log_probabilities(logits: Floats) -> Floats:
    """Returns the logarithm of the softmax over classes, (N, K) in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def predictions(logits: Floats) -> Ints:
    """Returns the likeliest class (N,) of each image."""
    return np.asarray(logits.argmax(axis=1))


def confidence(logits: Floats) -> Floats:
    """Returns the probability (N,) of each image's likeliest class."""
    return np.asarray(np.exp(log_probabilities(logits)).max(axis=1))


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


def wilson_interval(hits: Floats | Ints, counts: Floats | Ints) -> tuple[Floats, Floats]:
    """Returns the ends of the 95 % intervals of shares hits / counts, NaN where counts is 0; Wilson 1927."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share, z2 = hits / counts, NORMAL_95**2
        centre = (share + z2 / (2 * counts)) / (1 + z2 / counts)
        margin = NORMAL_95 * np.sqrt(share * (1 - share) / counts + z2 / (4 * counts**2)) / (1 + z2 / counts)
        return np.maximum(centre - margin, 0), np.minimum(centre + margin, 1)


def class_table(confusion: Ints, classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Returns the table of `score_table` from a confusion matrix (K, K)."""
    return score_table(confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0), classes)


def score_table(hits: Ints, support: Ints, predicted: Ints, classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Returns support, precision, recall and F1 of each class, each with the ends of its 95 % interval; None without support.

    From counts (K,) of the images that have a class and are said to, that have it, that are said to have it.
    Intervals: Wilson's; F1 = 2 J / (1 + J), where J is the share of hits among images of the class or taken for it.
    """
    either = support + predicted - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = {
            "precision": (hits / predicted, *wilson_interval(hits, predicted)),
            "recall": (hits / support, *wilson_interval(hits, support)),
            "f1": tuple(2 * share / (1 + share) for share in (hits / either, *wilson_interval(hits, either))),
        }
    table: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(classes):
        table[name] = {"support": int(support[index])}
        for figure, (values, low, high) in figures.items():
            value = _number(values[index]) if support[index] else None
            table[name][figure] = value
            table[name][f"{figure}_interval"] = None if value is None else [_number(low[index]), _number(high[index])]
    return table


def most_confused(confusion: Ints, classes: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """Returns the largest confusions: true class, predicted class, images, share of the true class's images."""
    errors = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-errors, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, errors.shape)
    support = confusion.sum(axis=1)
    return [
        {
            "true": classes[row],
            "predicted": classes[column],
            "images": int(errors[row, column]),
            "share": float(errors[row, column] / support[row]),
        }
        for row, column in zip(rows, columns, strict=True)
        if errors[row, column]
    ]


def prediction_rows(
    logits: Floats, labels: Ints, classes: tuple[str, ...], files: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Returns a row an image: index, file if known, true and predicted class, confidence, margin, loss in nats."""
    log_p = log_probabilities(logits)
    ranked = np.sort(np.exp(log_p), axis=1)
    columns = {
        "true": [classes[label] for label in labels],
        "predicted": [classes[answer] for answer in predictions(logits)],
        "confidence": decimals(ranked[:, -1]),
        "margin": decimals(ranked[:, -1] - ranked[:, -2]),
        "loss": decimals(-log_p[np.arange(len(labels)), labels]),
    }
    return rows_of(columns, files)


def rows_of(columns: Mapping[str, Sequence[str]], files: Sequence[str] | None) -> list[dict[str, Any]]:
    """Returns a row an image from columns (N,): its index and file, if that is known, come first."""
    return [
        {"index": index, **({"file": files[index]} if files else {}), **dict(zip(columns, cells, strict=True))}
        for index, cells in enumerate(zip(*columns.values(), strict=True))
    ]


def decimals(values: Floats) -> list[str]:
    """Returns numbers (N,) as text with six decimals."""
    return [f"{value:.6f}" for value in values]


def summarise(logits: Floats, labels: Ints, classes: tuple[str, ...]) -> dict[str, Any]:
    """Returns the figures that metrics.json keeps of a split; shares are 0..1, intervals 95 %, a class without images None."""
    confusion = confusion_matrix(logits, labels)
    low, high = wilson_interval(np.asarray(confusion.trace()), np.asarray(len(labels)))
    return {
        "images": len(labels),
        "accuracy": top_k_accuracy(logits, labels, 1),
        "accuracy_interval": [float(low), float(high)],
        "top5_accuracy": top_k_accuracy(logits, labels, 5),
        "cross_entropy": cross_entropy(logits, labels),
        "classes": class_table(confusion, classes),
        "most_confused": most_confused(confusion, classes, 10),
        "confusion": confusion.tolist(),
    }


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
