"""The task, single-label or multi-label: their predictions and metrics, as one value (losses: training/losses.py)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sprintnet.data.dataset import LABEL_SEPARATOR, ImageDataset, label_text
from sprintnet.data.preprocessing import Preprocessing
from sprintnet.evaluation import calibration, metrics, multilabel
from sprintnet.evaluation.held_out import set_metrics, unknown_metrics
from sprintnet.evaluation.metrics import Floats, Ints, Mask
from sprintnet.evaluation.ranking import ranking


@dataclass(frozen=True)
class Task:
    """The predictions and metrics for logits (N, K).

    Labels and predictions are (N,), or of a multi-label task (N, K) of 0 and 1. Functions of tensors run on the device, those
    of arrays in NumPy. `cross_entropy` takes the label smoothing last.
    """

    name: str
    activate: Callable[[Tensor], Tensor]
    correct: Callable[[Tensor, Tensor], Tensor]  # (B,): whether the class, or every label, is right
    predictions: Callable[[Floats], Ints]
    confidence: Callable[[Floats], Floats]  # (N,): the probability of the predicted class or label set
    membership: Callable[[Ints, int], Mask]  # (N, K): which of K classes each image has, from its labels
    cross_entropy: Callable[[Floats, Ints, float], float]
    summarise: Callable[[Floats, Ints, tuple[str, ...]], dict[str, Any]]
    calibration: Callable[[Floats, Ints], dict[str, Any]]
    fit_temperature: Callable[[Floats, Ints], float]
    margin: Callable[[Floats], Floats]  # (N,): how much more probable the predicted class or label set is than the second
    losses: Callable[[Floats, Ints], Floats]  # (N,): the cross-entropy of each image

    def correct_mask(self, logits: Floats, labels: Ints) -> Mask:
        """Returns (N,): whether each image's class, or every label, is predicted correctly."""
        equal = self.predictions(logits) == labels
        return np.asarray(equal.reshape(len(labels), -1).all(axis=1))

    def accuracy(self, logits: Floats, labels: Ints) -> float:
        """Returns the share of images predicted correctly, 0..1; of multi-label tasks this is exact match."""
        return float(self.correct_mask(logits, labels).mean())


SINGLE_LABEL = Task(
    name="single-label",
    activate=lambda logits: logits.softmax(1),
    correct=lambda logits, labels: logits.argmax(1) == (labels if labels.ndim == 1 else labels.argmax(1)),
    predictions=metrics.predictions,
    confidence=metrics.confidence,
    membership=lambda labels, classes: labels[:, None] == np.arange(classes),
    cross_entropy=metrics.cross_entropy,
    summarise=metrics.summarise,
    calibration=calibration.calibration,
    fit_temperature=calibration.fit_temperature,
    margin=metrics.margin,
    losses=metrics.losses,
)
MULTI_LABEL = Task(
    name="multi-label",
    activate=torch.sigmoid,
    correct=lambda logits, labels: ((logits > 0) == (labels > 0.5)).all(1),
    predictions=multilabel.label_predictions,
    confidence=multilabel.label_confidence,
    membership=lambda labels, classes: labels == 1,
    cross_entropy=multilabel.binary_cross_entropy,
    summarise=multilabel.summarise_labels,
    calibration=calibration.label_calibration,
    fit_temperature=calibration.fit_label_temperature,
    margin=multilabel.label_margin,
    losses=multilabel.label_losses,
)
TASKS = {task.name: task for task in (SINGLE_LABEL, MULTI_LABEL)}


@dataclass(frozen=True)
class Evaluation:
    """The logits (N, K) of a dataset with its labels and, with TTA, tta_logits; its metrics and rows follow from these.

    Of some images of a dataset, their index (N,) too.
    """

    arrays: dict[str, Any]
    tta_seconds: float | None = None
    """Time of the predictions with TTA, the first pass included, as published records count it."""
    is_held_out: bool = False
    """Whether these are the images that calibrated the model: those that gave it scores do not show how sets fare."""

    def metrics(self, preprocessing: Preprocessing) -> dict[str, Any]:
        """Returns the metrics of a split, as metrics.json has them."""
        task, logits, labels = TASKS[preprocessing.task], self.arrays["logits"], self.arrays["labels"]
        found = task.summarise(logits, labels, preprocessing.classes)
        if (tta_logits := self.arrays.get("tta_logits")) is not None:
            found["tta"] = {
                **metrics.accuracy_with_interval(task.correct_mask(tta_logits, labels)),
                "cross_entropy": task.cross_entropy(tta_logits, labels, 0.0),
                "fraction": float((tta_logits != logits).any(axis=1).mean()),
                "seconds": self.tta_seconds,
            }
        calibrated = preprocessing.calibrated(logits)
        found["calibration"] = task.calibration(logits, labels)
        if preprocessing.temperature is not None:
            found["calibrated"] = task.calibration(calibrated, labels)
        probabilities = preprocessing.probabilities(logits)
        found |= ranking(probabilities, task.membership(labels, len(preprocessing.classes)), preprocessing.classes)
        found |= set_metrics(preprocessing.held_out_scores, probabilities, labels, held_out=self.is_held_out)
        if "novelty" in self.arrays:
            found |= unknown_metrics(preprocessing, self.arrays["novelty"], labels, held_out=self.is_held_out)
        confidence = task.confidence(calibrated)
        return found | {"coverage": calibration.coverage_table(confidence, task.correct_mask(logits, labels))}

    def rows(self, preprocessing: Preprocessing, files: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Returns a row for each image: index, file if known, true, predicted, confidence, margin, loss in nats.

        Confidence, margin and loss are those of calibrated probabilities.
        Rows of a multi-label task also have the probabilities, in the order of the classes, separated by |.
        """
        task, classes, labels = TASKS[preprocessing.task], preprocessing.classes, self.arrays["labels"]
        logits = preprocessing.calibrated(self.arrays["logits"])
        index = self.arrays.get("index", np.arange(len(labels))).tolist()
        columns: dict[str, Sequence[Any]] = {"index": index} | ({"file": files} if files else {})
        columns |= {"true": label_text(labels, classes), "predicted": label_text(task.predictions(logits), classes)}
        numbers = {"confidence": task.confidence(logits), "margin": task.margin(logits), "loss": task.losses(logits, labels)}
        columns |= {name: _decimals(values) for name, values in numbers.items()}
        if labels.ndim == 2:
            probabilities = multilabel.label_probabilities(logits)
            columns["probabilities"] = [LABEL_SEPARATOR.join(_decimals(row)) for row in probabilities]
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _decimals(values: Floats) -> list[str]:
    return [f"{value:.6f}" for value in values]


def task_of(dataset: ImageDataset) -> Task:
    """Returns the task of a dataset's labels."""
    return MULTI_LABEL if dataset.multi_label else SINGLE_LABEL
