"""A trained network with what is needed to feed it, and the ways to open one from its files."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sprintnet import runtime
from sprintnet.config import Config, load_config
from sprintnet.data.dataset import ImageDataset, Images
from sprintnet.data.loader import Batch, Loader, Normalisation
from sprintnet.errors import SettingsError
from sprintnet.evaluation.calibration import coverage_table
from sprintnet.evaluation.metrics import Floats, Ints
from sprintnet.evaluation.predict import predict, predict_tta
from sprintnet.evaluation.task import SINGLE_LABEL, TASKS, Task, task_of
from sprintnet.models.factory import load_model, weights_file
from sprintnet.progress import track
from sprintnet.runs.folder import RunFolder, open_run, require_consistent
from sprintnet.runtime import Runtime

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class TrainedModel:
    """A trained network on its device, with what is needed to feed it."""

    model: nn.Module
    classes: tuple[str, ...]
    normalisation: Normalisation
    context: Runtime
    temperature: float | None
    """What logits are divided by for calibrated probabilities; None where no held-out images were there to fit it."""
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    task: Task
    resize: str = "stretch"
    """How pictures of another shape are brought to it (images.RESIZE_POLICIES)."""
    mirrors: bool = True
    """Whether mirror images count among six views: not where training had none."""

    def evaluate(self, dataset: ImageDataset) -> tuple[Floats, Ints, dict[str, Any]]:
        """Returns logits (N, K), labels and the figures of a data set; raises SettingsError if its classes are others."""
        if task_of(dataset) is not self.task:
            raise SettingsError(f"the data is {task_of(dataset).name}, the network {self.task.name}; give it data of its kind")
        if dataset.classes != self.classes:
            raise SettingsError(
                f"the data has the classes {', '.join(dataset.classes)}; the network: {', '.join(self.classes)}"
            )
        logits, labels = predict(self.model, self._batches(dataset, "evaluating"), self.context)
        return logits, labels, self.task.summarise(logits, labels, dataset.classes)

    def evaluate_with_tta(self, dataset: ImageDataset, tta: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns arrays (logits, labels, with `tta` tta_logits) and all figures: also of six views, calibration, coverage."""
        started = time.monotonic()
        logits, labels, figures = self.evaluate(dataset)
        confidence = self.task.confidence(logits)
        arrays = {"logits": logits, "labels": labels}
        if tta:
            batches = self._batches(dataset, "six views")
            again = predict_tta(self.model, batches, self.context, logits, confidence, tta, mirror=self.mirrors)
            arrays["tta_logits"] = again
            figures["tta"] = {
                "accuracy": self.task.accuracy(again, labels),
                "cross_entropy": self.task.cross_entropy(again, labels, 0.0),
                "fraction": float((again != logits).any(axis=1).mean()),
                "seconds": time.monotonic() - started,  # from the first answers on, as the records count it
            }
        figures["calibration"] = self.task.calibration(logits, labels, 1.0)
        if self.temperature is not None:
            figures["calibration_at_temperature"] = self.task.calibration(logits, labels, self.temperature)
        figures["coverage"] = coverage_table(confidence, self.task.correct_mask(logits, labels))
        return arrays, figures

    def predict_logits(self, images: Images, label: str = "answering") -> Floats:
        """Returns logits (N, K) of uint8 images (N, H, W, C); raises SettingsError for any of another size or type."""
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            wanted = f"uint8 (N, {', '.join(map(str, self.image_shape))})"
            raise SettingsError(f"images: {images.dtype} of shape {images.shape}; the network takes {wanted}")
        unknown = ImageDataset(images, np.zeros(len(images), np.int64), self.classes)
        return predict(self.model, self._batches(unknown, label), self.context)[0]

    def _batches(self, dataset: ImageDataset, label: str) -> Iterable[Batch]:
        loader = Loader(dataset, self.normalisation, EVALUATION_BATCH, self.context.device)
        return track(loader.sequential(), len(loader), label)


def load(path: str | Path, device: str = "auto", precision: str = "auto") -> TrainedModel:
    """Returns the trained network of a weights file, or of a folder that holds one (a run's, an export's).

    Raises SettingsError where there is none or it is damaged.
    """
    return _open(weights_file(Path(path)), runtime.start(device, precision, 0, None))


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> tuple[TrainedModel, Config]:
    """Returns the trained network of a run folder and the run's settings, with overrides such as `device=cpu` applied.

    Raises SettingsError where files are missing or damaged.
    """
    run = open_run(path)
    config = load_config(run.config, overrides)
    return _open(run.weights, runtime.start(config.device, config.precision, config.threads, config.seed)), config


def _open(weights: Path, context: Runtime) -> TrainedModel:
    model, facts = load_model(weights)
    with require_consistent(RunFolder(weights.parent)):
        normalisation = Normalisation(tuple(facts["mean"]), tuple(facts["std"]))
        classes, shape, temperature = tuple(facts["classes"]), tuple(facts["image_shape"]), facts["temperature"]
        task = TASKS[facts.get("task", SINGLE_LABEL.name)]  # weights of earlier versions do not say
        resize = facts.get("resize", "stretch")  # runs from before other policies have none
        mirrors = facts.get("mirrors", True)  # nor a note on flips, which they had
    return TrainedModel(context.place(model), classes, normalisation, context, temperature, shape, task, resize, mirrors)
