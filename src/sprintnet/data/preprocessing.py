"""Preprocessing: all that a model needs besides its weights to predict as in training (no torch)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

TASK_NAMES, RESIZE_POLICIES = ("single-label", "multi-label"), ("stretch", "letterbox", "crop")
LABEL_THRESHOLD = 0.5  # probability above which a label is predicted: where its logit is positive, at any temperature


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
    temperature: float | None = None
    """What logits are divided by for calibrated probabilities; None without held-out images to fit it on."""

    @property
    def threshold(self) -> float | None:
        """Multi-label: a class is predicted above this probability. None: the most probable class is predicted."""
        return LABEL_THRESHOLD if self.task == "multi-label" else None

    def to_metadata(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return {**vars(self), "normalisation": self.normalisation._asdict()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Preprocessing":
        """Returns what `to_metadata` wrote; other keys are ignored. Raises KeyError, TypeError or ValueError if damaged."""
        height, width, channels = map(int, metadata["image_shape"])
        if metadata["task"] not in TASK_NAMES or metadata["resize"] not in RESIZE_POLICIES:
            raise ValueError(f"{metadata['task']} and {metadata['resize']} are not known")
        return cls(
            tuple(map(str, metadata["classes"])),
            (height, width, channels),
            Normalisation(*(tuple(map(float, metadata["normalisation"][name])) for name in Normalisation._fields)),
            str(metadata["resize"]),
            str(metadata["task"]),
            bool(metadata["flip_tta"]),
            None if metadata["temperature"] is None else float(metadata["temperature"]),
        )
