"""ROC and precision-recall curves of each class against the rest, and points on them, in NumPy."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from sprintnet.evaluation.metrics import Floats, Ints, Mask, wilson_interval

SPECIFICITIES = (0.9, 0.95, 0.99)
DIGITS = 5
GRID = np.linspace(0, 1, 41) ** 3  # dense at the end where good classifiers differ


def ranking_scores(scores: Floats, labels: Ints | Mask) -> tuple[float | None, float | None]:
    """Returns (average precision, area under the ROC curve) of one class, from its scores (N,) and who has it (N,).

    Both are None where no image has the class, the area also where all have it. Average precision is not interpolated;
    equal scores are one threshold.
    """
    _, hits, false = _counts(scores, labels)
    if not hits[-1]:
        return None, None
    precision = float((np.diff(hits) * hits[1:] / (hits + false)[1:]).sum() / hits[-1])
    if not false[-1]:
        return precision, None
    return precision, float(np.trapezoid(hits / hits[-1], false / false[-1]))


def ranking(scores: Floats, membership: Mask, classes: tuple[str, ...]) -> dict[str, Any]:
    """Returns `curves` and `operating_points` of scores (N, K), for the classes that some images have and some have not.

    curves: false_positive_rate and recall, both (M,); in `classes`, and in `macro` as their mean: true_positive_rate (M,) at
    the former, precision (M,) at the latter, roc_auc and average_precision. operating_points: for each class and specificity
    that is asked for, the lowest threshold of the score that gives it, with specificity, sensitivity (recall) and their 95%
    intervals.
    """
    by_class: dict[str, dict[str, Any]] = {}
    points = []
    for name, own, has in zip(classes, scores.T, membership.T, strict=True):
        thresholds, hits, false = _counts(own, has)
        positives, negatives = int(hits[-1]), int(false[-1])
        if not positives or not negatives:
            continue
        precision = np.append(1.0, hits[1:] / (hits + false)[1:])
        reached = np.searchsorted(hits / positives, 1 - GRID, side="left")  # the first threshold with so much recall
        by_class[name] = {
            "true_positive_rate": np.interp(GRID, false / negatives, hits / positives),
            "precision": precision[np.maximum(reached, 1)],
            **dict(zip(("average_precision", "roc_auc"), ranking_scores(own, has), strict=True)),
        }
        for asked in SPECIFICITIES:
            index = int(np.searchsorted(false, round((1 - asked) * negatives, 9), side="right")) - 1
            rates = {"sensitivity": (hits[index], positives), "specificity": (negatives - false[index], negatives)}
            point: dict[str, Any] = {"class": name, "asked": asked, "threshold": float(thresholds[index]) if index else None}
            for rate, (count, total) in rates.items():
                bounds = wilson_interval(np.asarray(count), np.asarray(total))
                point |= {rate: float(count / total), f"{rate}_interval": list(map(float, bounds))}
            points.append(point)
    if not by_class:
        return {}
    macro = {key: np.mean([curve[key] for curve in by_class.values()], axis=0) for key in next(iter(by_class.values()))}
    curves = {
        "false_positive_rate": GRID.tolist(), "recall": (1 - GRID).tolist(), "macro": _rounded(macro),
        "classes": {name: _rounded(curve) for name, curve in by_class.items()},
    }  # fmt: skip
    return {"curves": curves, "operating_points": points}


def mean_score(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the scores that are defined; None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _counts(scores: Floats, labels: Ints | Mask) -> tuple[Floats, Ints, Ints]:
    """Returns the distinct scores, highest first, with the images at or above each that have the class, and that have not;
    before the first of them, infinity and two zeros."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(labels[order], dtype=np.int64)[last]
    return np.append(np.inf, scores[order][last]), np.append(0, hits), np.append(0, last + 1 - hits)


def _rounded(curve: dict[str, Any]) -> dict[str, Any]:
    return {key: np.round(values, DIGITS).tolist() for key, values in curve.items()}
