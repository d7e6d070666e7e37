"""Preprocessing: all that a model needs besides its weights to predict as in training (no torch)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sprintnet.data.conformal import MORE_HELD_OUT, HeldOutScores, images_needed, p_values, sorted_scores
from sprintnet.errors import ArgumentError

TASK_NAMES, RESIZE_POLICIES = ("single-label", "multi-label"), ("stretch", "letterbox", "crop")
LABEL_THRESHOLD = 0.5  # probability above which a label is predicted: where its logit is positive, at any temperature

SMOOTHING_FLOOR = 0.01
"""The least that a class gets where label smoothing is undone, as a fraction of 1 / K; its calibration hardly depends on it."""
Floats = npt.NDArray[np.floating[Any]]


class View(NamedTuple):
    """A view of an image for test-time augmentation (TTA), with its weight in the mean of the logits."""

    shift: int
    """Pixels to the right and down; the border is a reflection."""
    is_mirrored: bool
    weight: float


NO_TTA = "none"
TTA_VIEWS = {
    "flip": (View(0, False, 0.5), View(0, True, 0.5)),
    "all": (
        View(0, False, 0.25), View(0, True, 0.25),
        View(1, False, 0.125), View(-1, False, 0.125), View(1, True, 0.125), View(-1, True, 0.125),
    ),
}  # fmt: skip
"""The views by name, the image itself first; `all` as in airbench94 (Jordan 2024, arXiv:2404.00498)."""


class Normalisation(NamedTuple):
    """Mean and standard deviation of each channel, of pixel values scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Preprocessing:
    """The metadata of a model, from training to weights files, ONNX files and reports."""

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    normalisation: Normalisation
    resize: str
    """How images of another size are resized: a policy of `data.resize`."""
    task: str
    """single-label or multi-label."""
    flip_tta: bool
    """Whether test-time augmentation mirrors images: only where training did."""
    label_smoothing: float = 0.0
    """Label smoothing alpha that calibrated probabilities undo; 0: none."""
    temperature: float | None = None
    """What logits are divided by for calibrated probabilities; None without held-out images to fit it on."""
    tta_temperatures: Mapping[str, float] = field(default_factory=dict)
    """The same for the mean logits of views, by the name of TTA_VIEWS; empty without held-out images."""
    held_out: Mapping[str, HeldOutScores] = field(default_factory=dict)
    """Scores of held-out images, for sets of classes: by the name of TTA_VIEWS, or `none`; empty without held-out images."""
    novelty_scores: tuple[float, ...] = ()
    """The sorted novelty of held-out images (`models.novelty`), for unknown images; empty without held-out images."""
    held_out_sha256: str | None = None
    """The digest of the held-out images."""
    thresholds: tuple[float, ...] = ()
    """For each class, the probability above which it is predicted; empty: see `threshold`."""
    tta: str | None = None
    """The name of TTA_VIEWS whose logits are averaged in every prediction; None: the image alone is predicted."""

    @property
    def threshold(self) -> float | None:
        """Multi-label: a class is predicted above this probability. None: the most probable class is predicted."""
        return LABEL_THRESHOLD if self.task == "multi-label" else None

    @property
    def held_out_scores(self) -> HeldOutScores | None:
        """Scores of held-out images, predicted with the same TTA as this; None where the model has none."""
        return self.held_out.get(self.tta or NO_TTA)

    def unsmoothed(self, logits: Floats) -> Floats:
        """Returns logits (N, K), fp64, of probabilities (p - alpha / K) / (1 - alpha), where p are those of the given logits.

        Label smoothing trains a network towards p, not towards the probability of the class. The order of the classes stays:
        below SMOOTHING_FLOOR / K, probabilities fall to half of it.
        """
        exact = logits.astype(np.float64)
        if not self.label_smoothing:
            return exact
        floor, lowest = smoothing_bounds(self.label_smoothing, logits.shape[1])
        sharpened = lowest + _softmax(exact) / (1 - self.label_smoothing)
        below = np.minimum(sharpened - floor, 0) / (floor - lowest)
        return np.asarray(np.log(np.maximum(sharpened, floor)) + math.log(2) * below)

    def calibrated(self, logits: Floats) -> Floats:
        """Returns the logits (N, K) of calibrated probabilities: label smoothing undone, divided by the temperature."""
        return self.unsmoothed(logits) / (self.temperature or 1.0)

    def probabilities(self, logits: Floats) -> Floats:
        """Returns calibrated probabilities (N, K)."""
        scaled = self.calibrated(logits)
        return _softmax(scaled) if self.threshold is None else np.asarray(np.exp(-np.logaddexp(0, -scaled)))

    def unknown(self, novelty: Floats, false_alarms: float) -> npt.NDArray[np.bool_]:
        """Returns whether each image (N,) is unlike the training images, from its novelty.

        `false_alarms` is the share of images like the held-out ones that are taken for unknown. Raises ArgumentError for one
        outside 0..1, or for which there are too few held-out images.
        """
        if not 0 < false_alarms < 1:
            raise ArgumentError("unknown", false_alarms, "must be more than 0 and less than 1, such as 0.01")
        images, needed = len(self.novelty_scores), images_needed(1 - false_alarms)
        if images < needed:
            few = f"{MORE_HELD_OUT}; with few images also allow more false alarms, such as 0.1 (needs {images_needed(0.9)})"
            least = few if not images else f"ask for {1 / (images + 1):.2g} or more"
            rule = f"needs {needed:,} held-out images, and the model has scores of {images:,}; {least}"
            raise ArgumentError("unknown", false_alarms, rule)
        return self.typicality(novelty) <= round(false_alarms, 12)

    def typicality(self, novelty: Floats) -> Floats:
        """Returns the share (N,) of held-out images that are as unlike the training images as each image, or more so."""
        return p_values(novelty, self.novelty_scores)

    def with_tta(self, tta: str | None) -> "Preprocessing":
        """Returns this with predictions averaged over the views that `tta` names (None: unchanged), and their temperature.

        Raises ArgumentError for a name that is not among `tta_choices`.
        """
        if tta is None:
            return self
        if tta not in self.tta_choices:
            hint = "" if self.flip_tta else ": the network was trained without mirrored images"
            raise ArgumentError("tta", tta, f"must be {' or '.join(self.tta_choices)}{hint}")
        return replace(self, tta=tta, temperature=self.tta_temperatures.get(tta))

    @property
    def tta_choices(self) -> tuple[str, ...]:
        """The names of TTA_VIEWS that the network can use: a network trained without mirrored images takes no `flip`."""
        return tuple(TTA_VIEWS) if self.flip_tta else ("all",)

    def views(self, tta: str) -> tuple[View, ...]:
        """Returns the views that one of `tta_choices` stands for: without mirrored ones where training had none."""
        views = [view for view in TTA_VIEWS[tta] if self.flip_tta or not view.is_mirrored]
        total = sum(view.weight for view in views)
        return tuple(view._replace(weight=view.weight / total) for view in views)

    def to_metadata(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        held_out = {tta: scores.to_metadata() for tta, scores in self.held_out.items()}
        return {**vars(self), "normalisation": self.normalisation._asdict(), "held_out": held_out}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Preprocessing":
        """Returns what `to_metadata` wrote; other keys are ignored. Raises KeyError, TypeError or ValueError if damaged."""
        height, width, channels = map(int, metadata["image_shape"])
        if metadata["task"] not in TASK_NAMES or metadata["resize"] not in RESIZE_POLICIES:
            raise ValueError(f"{metadata['task']} and {metadata['resize']} are not known")
        alpha, temperature = float(metadata.get("label_smoothing", 0.0)), metadata["temperature"]
        of_tta = {str(name): float(value) for name, value in dict(metadata.get("tta_temperatures", {})).items()}
        given = [*of_tta.values(), 1.0 if temperature is None else float(temperature)]
        if not 0 <= alpha < 1 or min(given) <= 0:
            raise ValueError(f"label smoothing {alpha}, temperatures {temperature} and {of_tta} are not possible")
        classes = tuple(map(str, metadata["classes"]))
        held_out = dict(metadata.get("held_out", {}))
        found = cls(
            classes,
            (height, width, channels),
            Normalisation(*(tuple(map(float, metadata["normalisation"][name])) for name in Normalisation._fields)),
            str(metadata["resize"]),
            str(metadata["task"]),
            bool(metadata["flip_tta"]),
            alpha,
            None if temperature is None else float(temperature),
            of_tta,
            {str(tta): HeldOutScores.from_metadata(scores, len(classes)) for tta, scores in held_out.items()},
            sorted_scores(map(float, metadata.get("novelty_scores", ()))),
            metadata.get("held_out_sha256"),
            tuple(map(float, metadata.get("thresholds", ()))),
        )
        if found.thresholds and (len(found.thresholds) != len(classes) or not all(0 <= each <= 1 for each in found.thresholds)):
            raise ValueError(f"{found.thresholds} are no thresholds of {len(classes)} classes")
        return replace(found, tta=metadata.get("tta")) if metadata.get("tta") in found.tta_choices else found


def smoothing_bounds(alpha: float, classes: int) -> tuple[float, float]:
    """Returns the floor of probabilities of which label smoothing is undone, and the lowest value that undoing gives."""
    return SMOOTHING_FLOOR / classes, -alpha / classes / (1 - alpha)


def _softmax(logits: Floats) -> Floats:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
