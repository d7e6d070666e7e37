"""TrainedModel: a network with its preprocessing, on a device; opened from a run folder, an export or a weights file."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sprintnet.config import Config, load_config
from sprintnet.data.conformal import HeldOutScores, sorted_scores
from sprintnet.data.dataset import ImageDataset, Images, digest, images_at_a_time
from sprintnet.data.loader import Loader
from sprintnet.data.preprocessing import NO_TTA, Preprocessing
from sprintnet.errors import SettingsError
from sprintnet.evaluation.held_out import reserved
from sprintnet.evaluation.metrics import Floats, Ints
from sprintnet.evaluation.predict import Outputs, outputs, predict, predict_tta
from sprintnet.evaluation.task import TASKS, Evaluation, Task, task_of
from sprintnet.models.base import Network
from sprintnet.models.factory import SavedModel, load_model, weights_file
from sprintnet.progress import track
from sprintnet.runs.folder import open_run
from sprintnet.runtime import Runtime, select_runtime

EVALUATION_BATCH = 500
"""Images that are evaluated at a time, at most."""
KNOWN_IMAGES = 5000
"""Training images whose embeddings say what is known, at most."""
TTA_CALIBRATION_IMAGES, MIN_TTA_CALIBRATION_IMAGES = 1000, 100
"""Held-out images that temperatures of TTA are fitted on, at most, and of large images at least: each is predicted eight times
more."""


class KnownImages(NamedTuple):
    """Training images and their embeddings (N, C)."""

    images: ImageDataset
    embeddings: Floats

    def nearest(self, embeddings: Floats) -> ImageDataset:
        """Returns for each of these embeddings (M, C) the image whose embedding has the most similar direction."""
        ours, theirs = (
            values / np.linalg.norm(values, axis=1, keepdims=True).clip(1e-12) for values in (self.embeddings, embeddings)
        )
        return self.images.take((theirs @ ours.T).argmax(axis=1))


@dataclass(frozen=True)
class TrainedModel:
    """A trained network on its device, with its preprocessing."""

    model: Network
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
        self._require_same_kind(dataset)
        return self._predict(self._loader(dataset), "evaluating")

    def _require_same_kind(self, dataset: ImageDataset) -> None:
        """Raises SettingsError for a dataset of another task, classes or image shape."""
        if task_of(dataset) is not self.task:
            raise SettingsError(f"the data is {task_of(dataset).name}, the model {self.task.name}; use data of the same kind")
        if dataset.classes != self.classes:
            theirs, ours = (", ".join(classes) for classes in (dataset.classes, self.classes))
            raise SettingsError(f"the data has the classes {theirs}; the model: {ours}; use data with the model's classes")
        if dataset.image_shape != self.preprocessing.image_shape:
            theirs, ours = ("x".join(map(str, shape)) for shape in (dataset.image_shape, self.preprocessing.image_shape))
            raise SettingsError(f"the data has images {theirs}, the model takes {ours}; set data.size and data.channels")

    def calibrated(
        self,
        val: ImageDataset,
        found: Evaluation,
        label_smoothing: float,
        cross_validated: Evaluation | None = None,
    ) -> "TrainedModel":
        """Returns the model with what suits held-out images: temperatures, and scores of half of these images.

        `label_smoothing` is that of the training, which is undone only where that lowers the cross-entropy of the other half.
        Temperatures are fitted on all of them, and on `cross_validated` images, which were held out from similar networks;
        those of the scores on the other half.
        """
        task, fits = self.task, []
        whole, kept = val, reserved(val.labels)
        logits, labels, others = found.arrays["logits"], whole.labels, ~kept
        if cross_validated:
            logits = np.concatenate([logits, cross_validated.arrays["logits"]])
            labels = np.concatenate([labels, cross_validated.arrays["labels"]])
            others = np.concatenate([others, np.ones(len(cross_validated.arrays["labels"]), bool)])
        for alpha in {label_smoothing if task is TASKS["single-label"] else 0.0, 0.0}:
            fit = replace(self.preprocessing, label_smoothing=alpha)
            of_others = task.fit_temperature(fit.unsmoothed(logits[others]), labels[others])
            loss = task.cross_entropy(fit.unsmoothed(logits[others]) / of_others, labels[others], 0.0)
            fits.append((loss, of_others, fit))
        _, of_others, best = min(fits, key=lambda found: found[0])
        temperature = task.fit_temperature(best.unsmoothed(logits), labels)
        best, held_out = replace(best, temperature=temperature), {}
        has_sets = kept.any() and not whole.multi_label
        if has_sets:
            own = best.probabilities(found.arrays["logits"][kept])
            held_out[NO_TTA] = HeldOutScores.of(own, whole.labels[kept], temperature / of_others)
        some = _spread(
            whole, max(MIN_TTA_CALIBRATION_IMAGES, TTA_CALIBRATION_IMAGES * self._evaluation_batch // EVALUATION_BATCH)
        )
        kept, of_tta = reserved(some.labels), {}
        for tta in best.tta_choices:
            with_tta = replace(self, preprocessing=best.with_tta(tta))
            averaged = with_tta.predict_logits(some.images, "calibrating")
            of_tta[tta] = task.fit_temperature(best.unsmoothed(averaged), some.labels)
            if has_sets and kept.any():
                of_others = task.fit_temperature(best.unsmoothed(averaged[~kept]), some.labels[~kept])
                own = replace(best, tta_temperatures=of_tta).with_tta(tta).probabilities(averaged[kept])
                held_out[tta] = HeldOutScores.of(own, some.labels[kept], of_tta[tta] / of_others)
        novelty = sorted_scores(found.arrays["novelty"][reserved(whole.labels)].tolist())
        best = replace(best, tta_temperatures=of_tta, held_out=held_out, novelty_scores=novelty, held_out_sha256=digest(whole))
        return replace(self, preprocessing=best)

    def embed_known(self, train: ImageDataset) -> "KnownImages":
        """Returns training images with their embeddings, of which it sets the statistics of the network's novelty."""
        some = _spread(train, KNOWN_IMAGES)
        embeddings = self.outputs(some, "embedding training images").embeddings
        membership = self.task.membership(some.labels, len(self.classes))
        self.model.novelty.fit(torch.from_numpy(embeddings), torch.from_numpy(membership))
        return KnownImages(some, embeddings)

    def outputs(self, dataset: ImageDataset, label: str) -> Outputs:
        """Returns what the network computes from the images of a dataset, with a progress bar."""
        loader = self._loader(dataset)
        with self.runtime.activated():
            return outputs(self.model, track(loader.sequential(), len(loader), label, images=loader.batch_size), self.runtime)

    def evaluate(self, dataset: ImageDataset, tta: float = 0.0) -> Evaluation:
        """Returns the logits of a dataset, from which its metrics follow.

        Images with a confidence of `tta` or less, before the temperature, are predicted again with test-time augmentation.
        """
        self._require_same_kind(dataset)
        started = time.monotonic()
        found = self.outputs(dataset, "evaluating")
        logits = found.logits
        arrays = {"logits": logits, "labels": dataset.labels, "novelty": found.novelty}
        is_held_out = digest(dataset) == self.preprocessing.held_out_sha256
        if not tta:
            return Evaluation(arrays, is_held_out=is_held_out)
        unsure = np.flatnonzero(self.task.confidence(logits) <= tta)
        tta_logits = logits.copy()
        tta_logits[unsure] = self._predict_tta(dataset.take(unsure), logits[unsure], "all")
        seconds = time.monotonic() - started
        return Evaluation({**arrays, "tta_logits": tta_logits}, seconds, is_held_out)

    def predict_logits(self, images: Images, label: str = "predicting") -> Floats:
        """Returns logits (N, K) of images, as `predict_outputs`."""
        return self.predict_outputs(images, label).logits

    def predict_outputs(self, images: Images, label: str = "predicting") -> Outputs:
        """Returns what the network computes from uint8 images (N, H, W, C) of its size; logits with the preprocessing's TTA.

        Raises SettingsError for other images.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self.preprocessing.image_shape:
            rule = f"the model takes uint8 (N, {', '.join(map(str, self.preprocessing.image_shape))}); resize or convert them"
            raise SettingsError(f"images: {images.dtype} of shape {images.shape}; {rule}")
        unlabelled = ImageDataset(images, np.zeros(len(images), np.int64), self.classes)
        found = self.outputs(unlabelled, label)
        if not (tta := self.preprocessing.tta):
            return found
        return found._replace(logits=self._predict_tta(unlabelled, found.logits, tta))

    def _predict(self, loader: Loader, label: str) -> tuple[Floats, Ints]:
        with self.runtime.activated():
            return predict(self.model, track(loader.sequential(), len(loader), label, images=loader.batch_size), self.runtime)

    def _predict_tta(self, dataset: ImageDataset, logits: Floats, tta: str) -> Floats:
        if not len(dataset):
            return logits
        loader, views = self._loader(dataset), self.preprocessing.views(tta)
        with self.runtime.activated():
            batches = track(loader.sequential(), len(loader), "TTA", images=loader.batch_size)
            return predict_tta(self.model, batches, self.runtime, logits, views)

    def _loader(self, dataset: ImageDataset) -> Loader:
        return Loader(dataset, self.preprocessing.normalisation, self._evaluation_batch, self.runtime.device)

    @property
    def _evaluation_batch(self) -> int:
        return images_at_a_time(EVALUATION_BATCH, self.model.working_shape(self.preprocessing.image_shape))


def _spread(images: ImageDataset, most: int) -> ImageDataset:
    """Returns images, at most so many, evenly spaced."""
    return images.take(np.unique(np.linspace(0, len(images) - 1, min(len(images), most)).astype(np.int64)))


def load(path: str | Path) -> TrainedModel:
    """Returns the model of a weights file, or of a run or export folder, with the setting `precision` of its training.

    Raises SettingsError where there is none.
    """
    saved = load_model(weights_file(Path(path)))
    return _trained(saved, select_runtime("auto", saved.precision, 0))


def load_run(path: str | Path, overrides: Sequence[str] = ()) -> tuple[TrainedModel, Config]:
    """Returns the model of a run folder and the run's settings, with overrides such as `device=cpu` applied.

    Raises SettingsError where files are missing or damaged.
    """
    run = open_run(path)
    config = load_config(run.config, overrides)
    runtime = select_runtime(config.device, config.precision, config.threads, deterministic=config.deterministic)
    return _trained(load_model(run.weights), runtime), config


def _trained(saved: SavedModel, runtime: Runtime) -> TrainedModel:
    return TrainedModel(runtime.place(saved.network), saved.preprocessing, runtime.on_idle_cores())
