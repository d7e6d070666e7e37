"""Predictions with PyTorch, from a run that has no export."""

from pathlib import Path

import numpy as np
import torch

from sprintnet.data.images import convert_pixels
from sprintnet.deploy.predictor import Pixels, Predictions, Predictor
from sprintnet.evaluation.trained_model import load_run


class RunPredictor(Predictor):
    """A run's model, used as an exported one: `RunPredictor("runs/train/sprint94")(images)`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._trained, _ = load_run(path, ["device=auto", "precision=fp32"])  # the precision of the export
        self.preprocessing, self.threshold = self._trained.preprocessing, self._trained.preprocessing.threshold
        self.outputs = ("probabilities", "logits")
        empty = np.empty((0, len(self.classes)), np.float32)
        self._none = Predictions(self.classes, empty, empty, threshold=self.threshold)

    def _predict(self, images: list[Pixels]) -> Predictions:
        trained, preprocessing = self._trained, self.preprocessing
        pixels = np.stack([convert_pixels(image, preprocessing.image_shape, preprocessing.resize) for image in images])
        logits = trained.predict_logits(pixels)
        probabilities = trained.task.activate(torch.from_numpy(logits) / (preprocessing.temperature or 1)).numpy()
        return Predictions(self.classes, probabilities, logits, threshold=self.threshold)
