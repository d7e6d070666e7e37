"""Predictions with PyTorch, from a run that has no export."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sprintnet.deploy.predictions import Predictions
from sprintnet.deploy.predictor import Pixels, Predictor
from sprintnet.evaluation.trained_model import load_run


class RunPredictor(Predictor):
    """A run's model, used as an exported one: `RunPredictor("runs/train/sprint94")(images)`."""

    def __init__(self, path: str | Path, tta: bool = False):
        self.path = Path(path)
        trained, _ = load_run(path, ["device=auto", "precision=fp32"])  # the precision of the export
        self.preprocessing = trained.preprocessing.with_tta("all" if tta else None)
        self._trained = replace(trained, preprocessing=self.preprocessing)
        self.threshold = self.preprocessing.threshold
        self.outputs = ("probabilities", "logits", "embeddings", "novelty")
        self._none = self._predict([np.zeros(self.preprocessing.image_shape, np.uint8)])[:0]

    def _predict(self, images: list[Pixels], options: Any = None) -> Predictions:
        found = self._trained.predict_outputs(np.stack(images))
        probabilities = self.preprocessing.probabilities(found.logits).astype(np.float32)
        return Predictions(self.preprocessing, probabilities, found.logits, None, found.embeddings, found.novelty)
