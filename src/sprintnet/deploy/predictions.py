"""Predictions for images, and what follows from them: labels, sets of classes, unknown images. NumPy alone."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sprintnet.data.conformal import METHODS, MORE_HELD_OUT, require_coverage
from sprintnet.data.dataset import label_text
from sprintnet.data.preprocessing import Preprocessing
from sprintnet.errors import ArgumentError

Floats = npt.NDArray[np.float32]
MAX_SHOWN = 5  # predictions in a repr
OUTPUTS = ("probabilities", "logits", "activation_maps", "embeddings", "novelty")
"""What a file can compute; the probabilities always."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for N images; indexing with a slice, a mask or indices selects images."""

    preprocessing: Preprocessing
    probabilities: Floats
    """(N, K), calibrated if the run held images out to fit a temperature."""
    logits: Floats | None = None
    """(N, K), before calibration."""
    activation_maps: Floats | None = None
    """Class activation maps (N, K, h, w) by Grad-CAM, 0 or more."""
    embeddings: Floats | None = None
    """(N, C): what the last layer classifies; similar images have similar directions."""
    novelty: Floats | None = None
    """(N,): how unlike the training images each is; see `unknown`."""

    def __len__(self) -> int:
        return len(self.probabilities)

    def __repr__(self) -> str:
        shown = [f"{label} {sure:.1%}" for label, sure in zip(self.labels[:MAX_SHOWN], self.confidences, strict=False)]
        return f"Predictions({len(self)} images: {', '.join(shown + ['...'] * (len(self) > MAX_SHOWN))})"

    def __getitem__(self, images: slice | npt.NDArray[Any]) -> "Predictions":
        outputs = {name: getattr(self, name) for name in OUTPUTS}
        return replace(self, **{name: values[images] for name, values in outputs.items() if values is not None})

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the probabilities."""
        return self.preprocessing.classes

    @property
    def threshold(self) -> float | None:
        """Multi-label: a class is predicted above this probability. None: the most probable class is predicted."""
        return self.preprocessing.threshold

    @property
    def predicted_mask(self) -> npt.NDArray[np.bool_]:
        """Whether each class is predicted, (N, K)."""
        if self.threshold is None:
            return np.asarray(self.probabilities.argmax(axis=1)[:, None] == np.arange(len(self.classes)))
        return self.probabilities > (
            np.asarray(self.preprocessing.thresholds) if self.preprocessing.thresholds else self.threshold
        )

    @property
    def unsure(self) -> npt.NDArray[np.bool_]:
        """Whether no class of each image (N,) is above its threshold: of a file with thresholds, and one label an image.

        `labels` names the most probable class all the same.
        """
        if self.threshold is not None or not self.preprocessing.thresholds:
            return np.zeros(len(self), bool)
        best = self.probabilities.argmax(axis=1)
        return np.asarray(self.probabilities.max(axis=1) <= np.asarray(self.preprocessing.thresholds)[best])

    @property
    def labels(self) -> list[str]:
        """The predicted class of each image; multi-label: all predicted classes as a|b|c, in the order of `classes`."""
        return label_text(self.predicted_mask, self.classes)

    @property
    def label_sets(self) -> list[list[tuple[str, float]]]:
        """The predicted classes of each image with their probabilities, most probable first."""
        return self._named(self.predicted_mask)

    def sets(self, coverage: float, method: str = "threshold", by_class: bool = False) -> list[list[tuple[str, float]]]:
        """Returns a set of classes for each image, most probable first, that contains the true class with a probability of at
        least `coverage`, such as 0.9 (conformal prediction; `method`: threshold or adaptive, see `data.conformal`).

        With `by_class`, that holds for the images of each class. Raises ArgumentError for a model of several labels, without
        held-out images or with too few of them.
        """
        if self.threshold is not None:
            raise ArgumentError("coverage", coverage, "sets are for models of one label an image; this one has several")
        if method not in METHODS:
            raise ArgumentError("method", method, f"must be {' or '.join(METHODS)}")
        require_coverage(coverage)
        if (scores := self.preprocessing.held_out_scores) is None:
            raise ArgumentError("coverage", coverage, f"the model has no scores of held-out images; {MORE_HELD_OUT}")
        return self._named(scores.sets(self.probabilities, coverage, method, by_class))

    @property
    def confidences(self) -> Floats:
        """(N,): the probability of the predicted class; multi-label: that all labels are right, if they are independent."""
        if self.threshold is None:
            return np.asarray(self.probabilities.max(axis=1))
        return np.asarray(np.where(self.predicted_mask, self.probabilities, 1 - self.probabilities).prod(axis=1))

    @property
    def typicality(self) -> npt.NDArray[np.floating[Any]] | None:
        """(N,): the share of held-out images that are as unlike the training images as this one, or more so; None without
        scores of held-out images."""
        if self.novelty is None or not self.preprocessing.novelty_scores:
            return None
        return self.preprocessing.typicality(self.novelty)

    def unknown(self, false_alarms: float = 0.01) -> npt.NDArray[np.bool_]:
        """Returns whether each image (N,) is unlike the training images, probably of none of the classes.

        Of images like the held-out ones, the share `false_alarms` is taken for unknown. Raises ArgumentError for a model
        without scores of held-out images or with too few of them, or whose file lacks the output novelty.
        """
        if self.novelty is None:
            remedy = "export it again, with that output"
            raise ArgumentError("unknown", false_alarms, f"the model has no output novelty; {remedy}")
        return self.preprocessing.unknown(self.novelty, false_alarms)

    def _named(self, chosen: npt.NDArray[np.bool_]) -> list[list[tuple[str, float]]]:
        """Returns the chosen classes (N, K) of each image with their probabilities, most probable first."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")
        return [
            [(self.classes[k], float(row[k])) for k in ranked if mask[k]]
            for ranked, row, mask in zip(order, self.probabilities, chosen, strict=True)
        ]

    def top(self, count: int) -> list[list[tuple[str, float]]]:
        """Returns the `count` most probable classes of each image with their probabilities; all K if `count` is larger."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :count]
        return [[(self.classes[k], float(row[k])) for k in best] for best, row in zip(order, self.probabilities, strict=True)]
