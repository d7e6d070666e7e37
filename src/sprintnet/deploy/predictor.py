"""Answers from an exported ONNX file: those of the trained network, by ONNX Runtime and NumPy alone."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from sprintnet.errors import SettingsError
from sprintnet.images import read_image

BATCH = 64
OUTPUTS = ("probabilities", "logits", "maps")
"""What a file can answer; the first is always there."""
QUIET = 4
"""ONNX Runtime's level at which it prints nothing: its errors are raised as well."""
REMEDY = "make one by `sprintnet export RUN`"

Image = str | Path | npt.NDArray[np.uint8]
"""A file, or pixels uint8 (H, W, C) of any size."""


@dataclass(frozen=True)
class Answers:
    """What a network says about N images."""

    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    """(N, K); calibrated if the run held images out, since they are at its temperature."""
    logits: npt.NDArray[np.float32] | None
    """(N, K), before the temperature."""
    maps: npt.NDArray[np.float32] | None
    """Class-activation maps (N, K, h, w), 0 or more: for each class, where the evidence for it lies (Grad-CAM, coarse)."""

    @property
    def labels(self) -> list[str]:
        """The likeliest class of each image."""
        return [self.classes[index] for index in self.probabilities.argmax(axis=1)]

    @property
    def confidences(self) -> npt.NDArray[np.float32]:
        """The probability (N,) of the likeliest class."""
        return np.asarray(self.probabilities.max(axis=1))

    def top(self, count: int) -> list[list[tuple[str, float]]]:
        """Returns, for each image, the `count` likeliest classes with their probabilities."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :count]
        return [[(self.classes[k], float(row[k])) for k in best] for best, row in zip(order, self.probabilities, strict=True)]


class Predictor:
    """An exported file, ready to answer: `Predictor("model.onnx")(images)`.

    `facts` holds the file's metadata: classes, preprocessing, recipe, metrics, parity and more. Raises SettingsError for a
    file that is missing, damaged or not made by `sprintnet export`. May be called from several threads at once.
    """

    def __init__(self, path: str | Path, threads: int = 0):
        self.path = Path(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = threads
        try:
            content = self.path.read_bytes()  # from memory, so that the file cannot send us to others
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise SettingsError(f"{self.path}: {error.strerror}; {REMEDY}") from None
        except Exception as error:  # ONNX Runtime's own kinds have no common base
            raise SettingsError(f"{self.path}: not a usable ONNX file ({str(error).splitlines()[0]}); {REMEDY}") from None
        self.facts = _facts(self._session.get_modelmeta().custom_metadata_map)
        named = {output.name for output in self._session.get_outputs()}
        self.outputs = tuple(name for name in OUTPUTS if name in named)
        if [entry.name for entry in self._session.get_inputs()] != ["images"] or "probabilities" not in named:
            raise SettingsError(f"{self.path}: takes no images or answers no probabilities; {REMEDY}")
        try:
            self.classes = tuple(map(str, self.facts["classes"]))
            height, width, channels = map(int, self.facts["preprocessing"]["image_shape"])
        except (KeyError, TypeError, ValueError):
            raise SettingsError(f"{self.path}: its metadata lack classes or preprocessing; {REMEDY}") from None
        self.image_shape = height, width, channels

    def __call__(self, images: Sequence[Image] | npt.NDArray[np.uint8], batch: int = BATCH) -> Answers:
        """Returns the answers for images, given as files or as pixels of any sizes, `batch` at a time.

        Raises DataError for a file that is no image, SettingsError for pixels of another form.
        """
        pixels = [self.read(image) for image in images]
        order: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(pixels):
            order.setdefault(image.shape, []).append(index)
        found: dict[str, Any] = {}
        for indices in order.values():
            for start in range(0, len(indices), batch):
                part = indices[start : start + batch]
                answers = self._session.run(self.outputs, {"images": np.stack([pixels[index] for index in part])})
                for name, values in zip(self.outputs, answers, strict=True):
                    whole = found.setdefault(name, np.empty((len(pixels), *values.shape[1:]), values.dtype))
                    whole[part] = values
        if not pixels:
            found["probabilities"] = np.empty((0, len(self.classes)), np.float32)
        return Answers(self.classes, found["probabilities"], found.get("logits"), found.get("maps"))

    def read(self, image: Image) -> npt.NDArray[np.uint8]:
        """Returns the pixels (H, W, C) of a file, or the given ones."""
        channels = self.image_shape[2]
        if isinstance(image, str | Path):
            return read_image(Path(image), channels=channels)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels or not image.size:
            raise SettingsError(
                f"images: {image.dtype} of shape {image.shape}; give each as uint8 (height, width, {channels}), values 0..255"
            )
        return image


def _facts(metadata: dict[str, str]) -> dict[str, Any]:
    """Returns the metadata, of which lists and objects are JSON."""
    facts: dict[str, Any] = dict(metadata)
    for key, text in metadata.items():
        if text[:1] in ("[", "{"):
            with contextlib.suppress(ValueError):
                facts[key] = json.loads(text)
    return facts
