"""The scores of single-label and multi-label metrics (metrics.json) and their names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLASS_SCORES = {"precision": "precision", "recall": "recall", "f1": "F1"}
"""Scores of each class that have a confidence interval: key -> name."""


@dataclass(frozen=True)
class TaskScores:
    """The names of a task's scores."""

    accuracy: str
    overall: Mapping[str, str]
    """Shares of the split besides accuracy: key -> name."""
    by_class: Mapping[str, str]
    """Scores of each class besides CLASS_SCORES, without interval: key -> name."""


SINGLE_LABEL_SCORES = TaskScores("accuracy", {"top5_accuracy": "top-5 accuracy"}, {})
MULTI_LABEL_SCORES = TaskScores(
    "exact match",
    {"mean_average_precision": "mAP", "micro_f1": "micro F1", "macro_f1": "macro F1", "hamming_loss": "Hamming loss"},
    {"average_precision": "AP", "roc_auc": "ROC AUC"},
)


def task_scores(metrics: Mapping[str, Any]) -> TaskScores:
    """Returns the names of the scores in a split's metrics."""
    return MULTI_LABEL_SCORES if "hamming_loss" in metrics else SINGLE_LABEL_SCORES


def overall_scores(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns the scores of a split besides its accuracy, as text by name."""
    found = {name: metrics[key] for key, name in task_scores(metrics).overall.items() if key in metrics}
    return {name: percent(value) for name, value in found.items()}


def percent(share: float | None, digits: int = 2) -> str:
    """Returns a share, 0..1, in percent; `undefined` for None."""
    return "undefined" if share is None else f"{share:.{digits}%}"


def interval(bounds: tuple[float, float]) -> str:
    """Returns the bounds, 0..1, of a 95% confidence interval in percent."""
    low, high = bounds
    return f"95% CI {100 * low:.2f} to {100 * high:.2f}"


def accuracy_with_interval(metrics: Mapping[str, Any]) -> str:
    """Returns the accuracy of a split in percent, with its confidence interval."""
    return f"{metrics['accuracy']:.2%} ({interval(metrics['accuracy_interval'])})"


def class_score(row: Mapping[str, Any], score: str) -> str:
    """Returns a score of a class in percent, with the bounds of its confidence interval if it has one."""
    if row[score] is None:
        return "undefined" if f"{score}_interval" not in row else "not predicted" if row["support"] else "no images"
    bounds = row.get(f"{score}_interval")
    return f"{row[score]:.1%}" + (f" ({100 * bounds[0]:.1f}-{100 * bounds[1]:.1f})" if bounds else "")
