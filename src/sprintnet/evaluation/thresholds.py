"""Thresholds of each class, by target precision or by cost, and how predictions with them fare; in NumPy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sprintnet.errors import ArgumentError
from sprintnet.evaluation.metrics import Floats, Mask, wilson_interval

NEVER = 1.0
"""The threshold of a class that is never predicted: no probability is above it."""


@dataclass(frozen=True)
class ThresholdRule:
    """How thresholds are chosen: by a precision, or by the costs of errors."""

    min_precision: float | None = None
    """Share of the predictions of a class that are right."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """By class: the cost of a wrong prediction of it, where one that is not made costs 1; the key "" is for all others."""

    def __bool__(self) -> bool:
        return self.min_precision is not None or bool(self.costs)

    def check(self, classes: Sequence[str], *, is_multi_label: bool) -> None:
        """Raises ArgumentError for a precision or a cost that cannot be."""
        if self.min_precision is not None and self.costs:
            raise ArgumentError("min_precision", self.min_precision, "cannot be combined with costs; leave one of them out")
        if self.min_precision is not None and not 0 < self.min_precision <= 1:
            raise ArgumentError("min_precision", self.min_precision, "must be more than 0 and at most 1, such as 0.95")
        least = 0 if is_multi_label else 1
        for name, cost in self.costs.items():
            if name and name not in classes:
                raise ArgumentError("cost", name, f"is no class of the model; its classes are {', '.join(classes)}")
            if not least <= cost < np.inf:
                rule = "0" if is_multi_label else "1, the cost of no prediction,"
                raise ArgumentError("cost", f"{name}={cost:g}" if name else f"{cost:g}", f"must be {rule} or more, such as 5")

    def thresholds(
        self, probabilities: Floats, membership: Mask, classes: Sequence[str], *, is_multi_label: bool
    ) -> list[float]:
        """Returns a threshold for each class, from calibrated probabilities (N, K) of held-out images and their classes (N, K).

        With a precision: the lowest at which so many of the predictions of the class are right; NEVER if there is none. With
        costs: where, by its probability, a prediction costs less than none. With several labels that is cost / (cost + 1)
        (Elkan 2001, "The foundations of cost-sensitive learning"), with one 1 - 1 / cost (Chow 1970, "On optimum recognition
        error and reject tradeoff").
        """
        if self.costs:
            costs = [self.costs.get(name, self.costs.get("", 1.0)) for name in classes]
            return [cost / (cost + 1) if is_multi_label else 1 - 1 / cost for cost in costs]
        assert self.min_precision is not None
        largest = probabilities.argmax(axis=1)
        found = []
        for label in range(len(classes)):
            chosen = slice(None) if is_multi_label else largest == label
            found.append(_lowest(probabilities[chosen, label], membership[chosen, label], self.min_precision))
        return found


def threshold_metrics(predicted: Mask, unsure: Mask, membership: Mask, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """Returns how predictions (N, K) with thresholds fare, of which the `unsure` (N,) are not made.

    images; unsure, the share of them; rows: for each class its threshold, the number of images that have it, predictions, and
    precision and recall with their 95 % intervals; precision is None without predictions, recall without images.
    """
    made = predicted & ~unsure[:, None]
    rows = []
    for (name, threshold), own, has in zip(thresholds.items(), made.T, membership.T, strict=True):
        right, count, support = int((own & has).sum()), int(own.sum()), int(has.sum())
        row: dict[str, Any] = {"class": name, "threshold": threshold, "images": support, "predictions": count}
        for score, total in (("precision", count), ("recall", support)):
            bounds = wilson_interval(np.asarray(right), np.asarray(total)) if total else None
            row |= {
                score: right / total if total else None,
                f"{score}_interval": bounds and [float(bounds[0]), float(bounds[1])],
            }
        rows.append(row)
    return {"images": len(predicted), "unsure": float(unsure.mean()), "rows": rows}


def _lowest(scores: Floats, is_right: Mask, precision: float) -> float:
    """Returns the lowest threshold above which at least this share of the scores (N,) is right."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    shares = np.cumsum(is_right[order]) / np.arange(1, len(order) + 1)
    is_last = np.append(ranked[1:] != ranked[:-1], True) if len(ranked) else np.zeros(0, bool)  # of equal scores
    good = np.flatnonzero(is_last & (shares >= precision))
    if not len(good):
        return NEVER
    last = good[-1]
    below = ranked[last + 1] if last + 1 < len(ranked) else 0.0
    return float((ranked[last] + below) / 2)
