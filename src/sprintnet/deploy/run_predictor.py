"""Predictions with PyTorch, from a run that has no export."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

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

    def _predict(self, images: list[Pixels], options: Any = None) -> Predictions:
        logits = self._trained.predict_logits(np.stack(images))
        probabilities = self._trained.task.activate(torch.from_numpy(logits) / (self.preprocessing.temperature or 1)).numpy()
        return Predictions(self.classes, probabilities, logits, threshold=self.threshold)
