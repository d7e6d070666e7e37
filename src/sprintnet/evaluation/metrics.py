"""Classification metrics from logits and labels, in NumPy; see `multilabel` for images with several labels."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]

NORMAL_95 = 1.959963984540054  # the 97.5% quantile of the standard normal distribution
MAX_CONFUSIONS = 10


def log_probabilities(logits: Floats) -> Floats:
    """Returns the log-softmax over classes, (N, K) in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def predictions(logits: Floats) -> Ints:
    """Returns the most probable class (N,) of each image."""
    return np.asarray(logits.argmax(axis=1))


def confidence(logits: Floats) -> Floats:
    """Returns the probability (N,) of each image's most probable class."""
    return np.asarray(np.exp(log_probabilities(logits)).max(axis=1))


def cross_entropy(logits: Floats, labels: Ints, label_smoothing: float = 0.0) -> float:
    """Returns the mean cross-entropy, in nats, with the targets (1 - alpha) * one_hot + alpha / K."""
    uniform = -log_probabilities(logits).mean(axis=1)
    return float(((1 - label_smoothing) * losses(logits, labels) + label_smoothing * uniform).mean())


def losses(logits: Floats, labels: Ints) -> Floats:
    """Returns the cross-entropy (N,) of each image, in nats."""
    return np.asarray(-log_probabilities(logits)[np.arange(len(labels)), labels])


def margin(logits: Floats) -> Floats:
    """Returns the lead (N,) of each image's most probable class over the second, in probability."""
    ranked = np.sort(np.exp(log_probabilities(logits)), axis=1)
    return np.asarray(ranked[:, -1] - ranked[:, -2])


def top_k_accuracy(logits: Floats, labels: Ints, k: int) -> float:
    """Returns the share of images, 0..1, whose label is among the k largest logits; ties go to the lower class."""
    largest = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return float((largest == labels[:, None]).any(axis=1).mean())


def confusion_matrix(logits: Floats, labels: Ints) -> Ints:
    """Returns counts (K, K): rows are true classes, columns predicted classes."""
    classes = logits.shape[1]
    pairs = labels * classes + predictions(logits)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def wilson_interval(hits: Floats | Ints, counts: Floats | Ints) -> tuple[Floats, Floats]:
    """Returns the bounds of the 95% confidence interval of hits / counts, NaN where counts is 0. Wilson 1927."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share, z2 = hits / counts, NORMAL_95**2
        centre = (share + z2 / (2 * counts)) / (1 + z2 / counts)
        margin = NORMAL_95 * np.sqrt(share * (1 - share) / counts + z2 / (4 * counts**2)) / (1 + z2 / counts)
        return np.maximum(centre - margin, 0), np.minimum(centre + margin, 1)


def accuracy_with_interval(correct: Mask) -> dict[str, Any]:
    """Returns the share of True and its 95% confidence interval, as metrics.json has them."""
    low, high = wilson_interval(np.asarray(correct.sum()), np.asarray(len(correct)))
    return {"accuracy": float(correct.mean()), "accuracy_interval": [float(low), float(high)]}


def score_table(hits: Ints, support: Ints, predicted: Ints, classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Returns support, precision, recall and F1 by class, with 95% confidence intervals; undefined scores are None.

    The arguments are counts (K,): true positives, images with the class, images predicted to have it. The interval of F1 is
    that of the Jaccard index J, Wilson's, mapped by F1 = 2 J / (1 + J).
    """
    union = support + predicted - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = {
            "precision": (hits / predicted, *wilson_interval(hits, predicted)),
            "recall": (hits / support, *wilson_interval(hits, support)),
            "f1": tuple(2 * share / (1 + share) for share in (hits / union, *wilson_interval(hits, union))),
        }
    table: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(classes):
        table[name] = {"support": int(support[index])}
        for score, columns in scores.items():
            value, low, high = (float(column[index]) for column in columns)
            is_defined = support[index] and not np.isnan(value)
            table[name][score] = value if is_defined else None
            table[name][f"{score}_interval"] = [low, high] if is_defined else None
    return table


def most_confused(confusion: Ints, classes: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """Returns the most frequent confusions: true class, predicted class, images, share of the true class's images."""
    errors, support = confusion - np.diag(confusion.diagonal()), confusion.sum(axis=1)
    order = np.argsort(-errors, axis=None, kind="stable")[:count]
    found = []
    for row, column in zip(*np.unravel_index(order[errors.flat[order] > 0], errors.shape), strict=True):
        images = int(errors[row, column])
        names = {"true": classes[row], "predicted": classes[column]}
        found.append({**names, "images": images, "share": float(images / support[row])})
    return found


def summarise(logits: Floats, labels: Ints, classes: tuple[str, ...]) -> dict[str, Any]:
    """Returns the metrics of a split, as metrics.json has them; shares are 0..1, intervals 95%, undefined scores None.

    Top-5 accuracy is left out for five classes or fewer: it would be 1.
    """
    confusion = confusion_matrix(logits, labels)
    top5 = {"top5_accuracy": top_k_accuracy(logits, labels, 5)} if len(classes) > 5 else {}
    return {
        "images": len(labels),
        **accuracy_with_interval(predictions(logits) == labels),
        **top5,
        "cross_entropy": cross_entropy(logits, labels),
        "classes": score_table(confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0), classes),
        "most_confused": most_confused(confusion, classes, MAX_CONFUSIONS),
        "confusion": confusion.tolist(),
    }
