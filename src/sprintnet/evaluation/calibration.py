"""Calibration metrics, temperature scaling and selective prediction, in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sprintnet.evaluation.metrics import Floats, Ints, Mask, cross_entropy, log_probabilities
from sprintnet.evaluation.multilabel import binary_cross_entropy, label_probabilities

BINS = 15
COVERAGES = (1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.5)


def calibration(logits: Floats, labels: Ints) -> dict[str, Any]:
    """Returns the calibration metrics of logits (N, K); all but NLL and Brier score are of the top-1 prediction.

    nll, in nats; brier, summed over classes (0..2); ece over 15 bins of equal width, adaptive_ece over 15 bins of equal count
    (Guo et al. 2017, arXiv:1706.04599; Nixon et al. 2019, arXiv:1904.01685); reliability: a row for each bin of equal width,
    with images, confidence and accuracy (None in an empty bin).
    """
    probabilities = np.exp(log_probabilities(logits))
    brier = _brier(probabilities, np.eye(probabilities.shape[1])[labels])
    found: dict[str, Any] = {"nll": cross_entropy(logits, labels), "brier": brier}
    return found | _calibration_errors(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def label_calibration(logits: Floats, labels: Ints) -> dict[str, Any]:
    """Returns the same metrics for labels (N, K) of 0 and 1, over all pairs of image and label.

    The confidence of a pair is the probability that the image has the label, its accuracy whether it has; `images` counts
    pairs. nll and brier (0..K) are summed over labels.
    """
    probabilities = label_probabilities(logits)
    found = {"nll": binary_cross_entropy(logits, labels), "brier": _brier(probabilities, labels)}
    return found | _calibration_errors(probabilities.ravel(), labels.ravel() == 1)


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """Returns the temperature, 0.01..100, that minimises the NLL of logits / temperature. Guo et al. 2017.

    With N images, the targets give 1 / (N + 2) to the other classes, as in Platt 1999 ("Probabilistic outputs for support
    vector machines"): a few images, all predicted correctly, would otherwise give infinite certainty.
    """
    centred = logits.astype(np.float64) - logits.mean(axis=1, keepdims=True)
    classes, doubt = logits.shape[1], 1 / (len(labels) + 2)
    true_logits = centred[np.arange(len(labels)), labels].mean() * (1 - doubt * classes / (classes - 1))  # all sum to 0

    def slope(inverse: float) -> float:
        probabilities = np.exp(log_probabilities(centred * inverse))
        return float((probabilities * centred).sum(axis=1).mean() - true_logits)

    return 1 / _root(slope)


def fit_label_temperature(logits: Floats, labels: Ints) -> float:
    """Returns the temperature, 0.01..100, that minimises the binary cross-entropy of logits / temperature.

    With P positive and Q negative labels, the targets are (P + 1) / (P + 2) and 1 / (Q + 2), as in Platt 1999.
    """
    exact, positive = logits.astype(np.float64), labels == 1
    targets = np.where(positive, 1 - 1 / (positive.sum() + 2), 1 / ((~positive).sum() + 2))
    return 1 / _root(lambda inverse: float(((label_probabilities(exact * inverse) - targets) * exact).mean()))


def coverage_table(confidence: Floats, correct: Mask) -> list[dict[str, float]]:
    """Returns the accuracy of selective prediction: a row for each share of images kept, most confident first.

    Rows have coverage, the lowest confidence among the kept images, and their accuracy; arguments are (N,).
    """
    order = np.argsort(-confidence, kind="stable")
    sizes = dict.fromkeys(max(1, round(coverage * len(order))) for coverage in COVERAGES)  # of few images, some are equal
    kept = [order[:size] for size in sizes]
    return [
        {"coverage": len(part) / len(order), "confidence": float(confidence[part[-1]]), "accuracy": float(correct[part].mean())}
        for part in kept
    ]


def _brier(probabilities: Floats, targets: Floats | Ints) -> float:
    return float(((probabilities - targets) ** 2).sum(axis=1).mean())


def _root(slope: Callable[[float], float]) -> float:
    """Returns the root, 0.01..100, of an increasing function: the NLL is convex in 1 / temperature, so this minimises it."""
    low, high = 0.01, 100.0
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) <= 0 else (low, middle)
    return float((low * high) ** 0.5)


def _calibration_errors(confidence: Floats, correct: Mask) -> dict[str, Any]:
    equal_width = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    equal_count = np.empty(len(correct), np.int64)
    equal_count[np.argsort(confidence, kind="stable")] = np.arange(len(correct)) * BINS // len(correct)
    ece, adaptive_ece = (
        float(np.abs(np.bincount(bins, confidence - correct, BINS)).sum() / len(correct)) for bins in (equal_width, equal_count)
    )
    sums = [np.bincount(equal_width, weights, BINS).tolist() for weights in (None, confidence, correct)]
    reliability = [
        {"images": count, "confidence": total / count if count else None, "accuracy": hits / count if count else None}
        for count, total, hits in zip(*sums, strict=True)
    ]
    return {"ece": ece, "adaptive_ece": adaptive_ece, "reliability": reliability}
