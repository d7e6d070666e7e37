"""TrainedModel: a network with its preprocessing, on a device; opened from a run folder, an export or a weights file."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from sprintnet.config import Config, load_config
from sprintnet.data.dataset import ImageDataset, Images
from sprintnet.data.loader import Batch, Loader
from sprintnet.data.preprocessing import Preprocessing
from sprintnet.errors import SettingsError
from sprintnet.evaluation.calibration import coverage_table
from sprintnet.evaluation.metrics import Floats, Ints, accuracy_with_interval
from sprintnet.evaluation.predict import predict, predict_tta
from sprintnet.evaluation.task import TASKS, Task, task_of
from sprintnet.models.factory import load_model, weights_file
from sprintnet.progress import track
from sprintnet.runs.folder import open_run
from sprintnet.runtime import Runtime, select_runtime

EVALUATION_BATCH = 500


class Evaluation(NamedTuple):
    """Arrays (logits, labels and, with TTA, tta_logits) and metrics of a dataset."""

    arrays: dict[str, Any]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class TrainedModel:
    """A trained network on its device, with its preprocessing."""

    model: nn.Module
    preprocessing: Preprocessing
    runtime: Runtime

    @property
    def task(self) -> Task:
        """The task that the network was trained for."""
        return TASKS[self.preprocessing.task]

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the logits."""
        return self.preprocessing.classes

    def predict(self, dataset: ImageDataset) -> tuple[Floats, Ints]:
        """Returns logits (N, K) and labels of a dataset; raises SettingsError for another task, classes or image shape."""
        if task_of(dataset) is not self.task:
            raise SettingsError(f"the data is {task_of(dataset).name}, the model {self.task.name}; use data of the same kind")
        if dataset.classes != self.classes:
            theirs, ours = (", ".join(classes) for classes in (dataset.classes, self.classes))
            raise SettingsError(f"the data has the classes {theirs}; the model: {ours}; use data with the model's classes")
        if dataset.image_shape != self.preprocessing.image_shape:
            theirs, ours = ("x".join(map(str, shape)) for shape in (dataset.image_shape, self.preprocessing.image_shape))
            raise SettingsError(f"the data has images {theirs}, the model takes {ours}; set data.size and data.channels")
        with self.runtime.activated():
            return predict(self.model, self._batches(dataset, "evaluating"), self.runtime)

    def evaluate(self, dataset: ImageDataset, tta: float = 0.0) -> Evaluation:
        """Returns arrays and metrics of a dataset, calibration and coverage included.

        Images with a confidence of `tta` or less are predicted again with test-time augmentation.
        """
        started = time.monotonic()
        logits, labels = self.predict(dataset)
        metrics = self.task.summarise(logits, labels, dataset.classes)
        confidence = self.task.confidence(logits)
        arrays = {"logits": logits, "labels": labels}
        if tta:
            batches, flip = self._batches(dataset, "TTA"), self.preprocessing.flip_tta
            with self.runtime.activated():
                tta_logits = predict_tta(self.model, batches, self.runtime, logits, confidence, tta, flip=flip)
            arrays["tta_logits"] = tta_logits
            metrics["tta"] = {
                **accuracy_with_interval(self.task.correct_mask(tta_logits, labels)),
                "cross_entropy": self.task.cross_entropy(tta_logits, labels, 0.0),
                "fraction": float((tta_logits != logits).any(axis=1).mean()),
                "seconds": time.monotonic() - started,  # includes the first pass, as published records count it
            }
        metrics["calibration"] = self.task.calibration(logits, labels, 1.0)
        if (temperature := self.preprocessing.temperature) is not None:
            metrics["calibration_at_temperature"] = self.task.calibration(logits, labels, temperature)
        metrics["coverage"] = coverage_table(confidence, self.task.correct_mask(logits, labels))
        return Evaluation(arrays, metrics)

    def predict_logits(self, images: Images, label: str = "predicting") -> Floats:
        """Returns logits (N, K) of uint8 images (N, H, W, C) of the network's size; raises SettingsError for others."""
        if images.dtype != np.uint8 or images.shape[1:] != self.preprocessing.image_shape:
            rule = f"the model takes uint8 (N, {', '.join(map(str, self.preprocessing.image_shape))}); resize or convert them"
            raise SettingsError(f"images: {images.dtype} of shape {images.shape}; {rule}")
        unlabelled = ImageDataset(images, np.zeros(len(images), np.int64), self.classes)
        with self.runtime.activated():
            return predict(self.model, self._batches(unlabelled, label), self.runtime)[0]

    def _batches(self, dataset: ImageDataset, label: str) -> Iterable[Batch]:
        loader = Loader(dataset, self.preprocessing.normalisation, EVALUATION_BATCH, self.runtime.device)
        return track(loader.sequential(), len(loader), label)


def load(path: str | Path, device: str = "auto", precision: str = "auto") -> TrainedModel:
    """Returns the model of a weights file, or of a run or export folder; raises SettingsError where there is none."""
    return _open(weights_file(Path(path)), select_runtime(device, precision, 0))


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> tuple[TrainedModel, Config]:
    """Returns the model of a run folder and the run's settings, with overrides such as `device=cpu` applied.

    Raises SettingsError where files are missing or damaged.
    """
    run = open_run(path)
    config = load_config(run.config, overrides)
    return _open(run.weights, select_runtime(config.device, config.precision, config.threads)), config


def _open(weights: Path, runtime: Runtime) -> TrainedModel:
    saved = load_model(weights)
    return TrainedModel(runtime.place(saved.network), saved.preprocessing, runtime)
