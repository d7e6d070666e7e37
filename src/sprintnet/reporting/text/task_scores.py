"""Which figures there are of one class an image and of any number of labels, and what they are called; chosen once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLASS_SCORES = {"precision": "precision", "recall": "recall", "f1": "F1"}
"""Of every class (metrics.json), with an interval."""


@dataclass(frozen=True)
class Kind:
    """How the figures of a split (metrics.json) are named."""

    accuracy: str
    right: str
    """What is said of an image that counts in it."""
    scores: Mapping[str, str]
    """Beside accuracy, all in %, of the whole split."""
    rankings: Mapping[str, str]
    """Beside CLASS_SCORES, of each class, without intervals."""


SINGLE_LABEL = Kind("top-1 accuracy", "right", {"top5_accuracy": "top-5 accuracy"}, {})
MULTI_LABEL = Kind(
    "exact match",
    "right in every label",
    {
        "mean_average_precision": "mAP",
        "micro_f1": "micro F1",
        "macro_f1": "macro F1",
        "hamming_loss": "Hamming loss",
    },
    {"average_precision": "AP", "roc_auc": "ROC AUC"},
)


def kind_of(figures: Mapping[str, Any]) -> Kind:
    """Returns the kind of a split's figures."""
    return MULTI_LABEL if "hamming_loss" in figures else SINGLE_LABEL


def score_texts(figures: Mapping[str, Any]) -> dict[str, str]:
    """Returns the scores of a split beside its accuracy: name -> text."""
    found = {name: figures[key] for key, name in kind_of(figures).scores.items()}
    return {name: "undefined" if value is None else f"{value:.2%}" for name, value in found.items()}
