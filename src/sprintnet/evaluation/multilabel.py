"""Multi-label metrics from logits and labels (N, K) of 0 and 1, in NumPy.

A label is predicted where its probability is above 0.5, that is where its logit is positive, at any temperature.
"""

from typing import Any

import numpy as np

from sprintnet.evaluation.metrics import Floats, Ints, accuracy_with_interval, score_table
from sprintnet.evaluation.ranking import mean_score, ranking_scores


def label_probabilities(logits: Floats) -> Floats:
    """Returns the sigmoid of each logit, (N, K) in float64."""
    return np.asarray(np.exp(-np.logaddexp(0, -logits.astype(np.float64))))


def binary_cross_entropy(logits: Floats, labels: Ints, label_smoothing: float = 0.0) -> float:
    """Returns the binary cross-entropy, in nats, summed over labels and averaged over images: the NLL of a label set.

    The targets are (1 - alpha) * label + alpha / 2.
    """
    return float(label_losses(logits, (1 - label_smoothing) * labels + label_smoothing / 2).mean())


def label_predictions(logits: Floats) -> Ints:
    """Returns uint8 (N, K): 1 for each predicted label."""
    return (logits > 0).astype(np.uint8)


def label_confidence(logits: Floats) -> Floats:
    """Returns the probability (N,) of each image's predicted label set: the product of p, or 1 - p, over labels."""
    return np.asarray(np.exp(-np.logaddexp(0, -np.abs(logits.astype(np.float64))).sum(axis=1)))


def summarise_labels(logits: Floats, labels: Ints, classes: tuple[str, ...]) -> dict[str, Any]:
    """Returns the metrics of a split, as metrics.json has them; shares are 0..1, intervals 95%, undefined scores None.

    `accuracy` is exact match: all labels of the image right. mean_average_precision and macro_f1 are means over the labels
    that occur; micro_f1 and hamming_loss (share of wrong labels) are over all pairs of image and label.
    """
    predicted = label_predictions(logits)
    hits, support, predictions = (predicted & labels).sum(axis=0), labels.sum(axis=0), predicted.sum(axis=0)
    table = score_table(hits, support, predictions, classes)
    for index, row in enumerate(table.values()):
        row["average_precision"], row["roc_auc"] = ranking_scores(logits[:, index], labels[:, index])
        row["missed"], row["false"] = int(support[index] - hits[index]), int(predictions[index] - hits[index])
    positives = int(support.sum() + predictions.sum())
    return {
        "images": len(labels),
        **accuracy_with_interval((predicted == labels).all(axis=1)),
        "mean_average_precision": mean_score(row["average_precision"] for row in table.values()),
        "micro_f1": 2 * int(hits.sum()) / positives if positives else None,
        "macro_f1": mean_score(row["f1"] for row in table.values()),
        "hamming_loss": float((predicted != labels).mean()),
        "cross_entropy": binary_cross_entropy(logits, labels),
        "classes": table,
    }


def label_margin(logits: Floats) -> Floats:
    """Returns the lead (N,) of each image's label set over the second most probable: that without its least certain label."""
    return np.asarray(label_confidence(logits) * -np.expm1(-np.abs(logits.astype(np.float64)).min(axis=1)))


def label_losses(logits: Floats, targets: Floats | Ints) -> Floats:
    """Returns the binary cross-entropy (N,) of each image, in nats, summed over labels."""
    exact = logits.astype(np.float64)
    return np.asarray((np.logaddexp(0, exact) - targets * exact).sum(axis=1))
