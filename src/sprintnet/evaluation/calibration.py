"""Whether a probability of 0.9 is right nine times in ten: calibration figures, temperature, abstaining; in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sprintnet.evaluation.metrics import Floats, Ints, cross_entropy, log_probabilities
from sprintnet.evaluation.multilabel import binary_cross_entropy, label_probabilities

BINS = 15
Hits = npt.NDArray[np.bool_]
COVERAGES = (1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.5)


def calibration(logits: Floats, labels: Ints, temperature: float = 1.0) -> dict[str, Any]:
    """Returns the calibration figures of logits / temperature, all of the top answer but for NLL and Brier score.

    nll, in nats; brier, summed over classes (0..2); ece over 15 bins of equal width, adaptive_ece over 15 bins of equally many
    images (Guo et al. 2017, arXiv:1706.04599; Nixon et al. 2019, arXiv:1904.01685); reliability: the bins of equal width as
    rows of images, confidence, accuracy (the last two None in an empty bin).
    """
    scaled = logits / temperature
    probabilities = np.exp(log_probabilities(scaled))
    confidence, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    target = np.eye(probabilities.shape[1])[labels]
    brier = ((probabilities - target) ** 2).sum(axis=1).mean()
    return {
        "temperature": temperature,
        "nll": cross_entropy(scaled, labels),
        "brier": float(brier),
        **_errors(confidence, hits),
    }


def label_calibration(logits: Floats, labels: Ints, temperature: float = 1.0) -> dict[str, Any]:
    """Returns the same figures of labels (N, K) of 0 and 1, over all pairs of image and label.

    A pair's confidence is the probability that the image has the label, and it is right where it has, and `images`
    counts pairs; nll and brier (0..K) are summed over labels.
    """
    scaled = logits / temperature
    probabilities = label_probabilities(scaled)
    return {
        "temperature": temperature,
        "nll": binary_cross_entropy(scaled, labels),
        "brier": float(((probabilities - labels) ** 2).sum(axis=1).mean()),
        **_errors(probabilities.ravel(), labels.ravel() == 1),
    }


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """Returns the temperature, 0.01..100, at which logits / temperature have the least NLL on these images. Guo et al. 2017.

    Of N images, 1 / (N + 2) of each label goes to the other classes, as in Platt 1999 ("Probabilistic outputs for support
    vector machines"): a few images, all of them answered right, are no ground for certainty.
    """
    centred = logits.astype(np.float64) - logits.mean(axis=1, keepdims=True)
    classes, doubt = logits.shape[1], 1 / (len(labels) + 2)
    true_logits = centred[np.arange(len(labels)), labels].mean() * (1 - doubt * classes / (classes - 1))  # all sum to 0

    def slope(inverse: float) -> float:
        probabilities = np.exp(log_probabilities(centred * inverse))
        return float((probabilities * centred).sum(axis=1).mean() - true_logits)

    return 1 / _root(slope)


def fit_label_temperature(logits: Floats, labels: Ints) -> float:
    """Returns the temperature, 0.01..100, at which logits / temperature have the least binary cross-entropy on these images.

    Of P labels that are there and Q that are not, the former count as (P + 1) / (P + 2), the latter as 1 / (Q + 2), as in
    Platt 1999.
    """
    exact, there = logits.astype(np.float64), labels == 1
    targets = np.where(there, 1 - 1 / (there.sum() + 2), 1 / ((~there).sum() + 2))
    return 1 / _root(lambda inverse: float(((label_probabilities(exact * inverse) - targets) * exact).mean()))


def coverage_table(confidence: Floats, hits: Hits) -> list[dict[str, float]]:
    """Returns a row a share of images answered, the surest first: coverage, the least confidence among them, their accuracy.

    From each answer's confidence (N,) and whether it is right (N,).
    """
    order = np.argsort(-confidence, kind="stable")
    rows = []
    for coverage in COVERAGES:
        answered = order[: max(1, round(coverage * len(hits)))]
        rows.append(
            {
                "coverage": len(answered) / len(hits),
                "confidence": float(confidence[answered[-1]]),
                "accuracy": float(hits[answered].mean()),
            }
        )
    return rows


def _root(slope: Callable[[float], float]) -> float:
    """Returns where a rising function is zero, 0.01..100: the NLL is convex in 1 / temperature, so this is its minimum."""
    low, high = 0.01, 100.0
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) <= 0 else (low, middle)
    return float((low * high) ** 0.5)


def _errors(confidence: Floats, hits: Hits) -> dict[str, Any]:
    equal_width = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    equal_count = np.empty(len(hits), np.int64)
    equal_count[np.argsort(confidence, kind="stable")] = np.arange(len(hits)) * BINS // len(hits)
    return {
        "ece": _expected_error(equal_width, confidence, hits),
        "adaptive_ece": _expected_error(equal_count, confidence, hits),
        "reliability": _reliability(equal_width, confidence, hits),
    }


def _expected_error(bins: Ints, confidence: Floats, hits: Hits) -> float:
    """Returns the mean over images of their bin's |accuracy - confidence|."""
    gaps = np.bincount(bins, weights=confidence - hits, minlength=BINS)
    return float(np.abs(gaps).sum() / len(hits))


def _reliability(bins: Ints, confidence: Floats, hits: Hits) -> list[dict[str, Any]]:
    counts = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, hits)]
    return [
        {
            "images": int(count),
            "confidence": float(confidences / count) if count else None,
            "accuracy": float(right / count) if count else None,
        }
        for count, confidences, right in zip(counts, *sums, strict=True)
    ]
