"""The scores in the metrics of a split (metrics.json): their names, and their values as text."""

from collections.abc import Mapping
from typing import Any

FEW_IMAGES = 100
"""Images below which a temperature fitted on them, and what is measured on them, are rough estimates."""
CLASS_SCORES = {"precision": "precision", "recall": "recall", "f1": "F1", "average_precision": "AP", "roc_auc": "ROC AUC"}
"""Scores of a class: key -> name. The last two are multi-label scores without confidence interval."""
OVERALL_SCORES = {  # scores of a split besides its accuracy: key -> name
    "top5_accuracy": "top-5 accuracy",
    "mean_average_precision": "mAP",
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "hamming_loss": "Hamming loss",
}


def accuracy_name(metrics: Mapping[str, Any]) -> str:
    """Returns what accuracy is called in the task of the metrics."""
    return "exact match" if "hamming_loss" in metrics else "accuracy"


def accuracy_with_interval(metrics: Mapping[str, Any]) -> str:
    """Returns the accuracy of a split in percent, with its confidence interval."""
    return f"{metrics['accuracy']:.2%} ({interval(metrics['accuracy_interval'])})"


def overall_scores(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns the scores of a split besides its accuracy, in percent, by name."""
    return {name: percent(metrics[key]) for key, name in OVERALL_SCORES.items() if key in metrics}


def calibration_error(error: float, images: int) -> str:
    """Returns an expected calibration error in percent; "-" where it was measured on too few images to mean anything."""
    return "-" if images < FEW_IMAGES else percent(error)


def class_columns(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns the columns of the table of classes: score -> heading."""
    row = next(iter(metrics["classes"].values()))
    names = {key: name for key, name in CLASS_SCORES.items() if key in row}
    return {key: f"{name} (95% CI)" if f"{key}_interval" in row else name for key, name in names.items()}


def class_score(row: Mapping[str, Any], score: str) -> str:
    """Returns a cell of the table of classes: the score in percent, with the bounds of its confidence interval, if any."""
    if row[score] is None:
        return "undefined" if f"{score}_interval" not in row else "not predicted" if row["support"] else "no images"
    bounds = row.get(f"{score}_interval")
    return f"{row[score]:.1%}" + (f" ({100 * bounds[0]:.1f}-{100 * bounds[1]:.1f})" if bounds else "")


def ranking_columns(metrics: Mapping[str, Any]) -> list[str]:
    """Returns the columns of `ranking_rows`."""
    asked = dict.fromkeys(point["asked"] for point in metrics["operating_points"])
    return ["class", "ROC AUC", "AP", *(f"at {percent(share, 0)} specificity (95% CI)" for share in asked)]


def ranking_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Returns a row for each class of a split: areas under its curves, sensitivity at the operating points."""
    rows = []
    for name, curve in metrics["curves"]["classes"].items():
        points = [point for point in metrics["operating_points"] if point["class"] == name]
        cells = [class_score(point, "sensitivity") for point in points]
        rows.append([name, f"{curve['roc_auc']:.4f}", f"{curve['average_precision']:.4f}", *cells])
    return rows


def percent(share: float | None, digits: int = 2) -> str:
    """Returns a share, 0..1, in percent; `undefined` for None."""
    return "undefined" if share is None else f"{share:.{digits}%}"


def interval(bounds: tuple[float, float]) -> str:
    """Returns the bounds, 0..1, of a 95% confidence interval in percent."""
    low, high = bounds
    return f"95% CI {100 * low:.2f} to {100 * high:.2f}"
