"""Predictions from an exported ONNX file: those of the trained network, by ONNX Runtime and NumPy alone."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnxruntime

from sprintnet.data.dataset import LABEL_SEPARATOR
from sprintnet.data.images import MODES, read_image
from sprintnet.errors import SettingsError

BATCH = 64
HELD_PIXELS = 4_000_000
"""Of the images that are answered together, unless one has more by itself."""
OUTPUTS = ("probabilities", "logits", "maps")
"""What a file can answer; the first is always there."""
QUIET = 4
"""ONNX Runtime's level at which it prints nothing: its errors are raised as well."""
REMEDY = "make one by `sprintnet export RUN`"

Pixels = npt.NDArray[np.uint8]
Image = str | Path | Pixels
"""A file, or pixels uint8 (H, W, C) of any size."""
Key = TypeVar("Key")


@dataclass(frozen=True)
class Predictions:
    """What a network says about N images."""

    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    """(N, K); calibrated if the run held images out, since they are at its temperature."""
    logits: npt.NDArray[np.float32] | None
    """(N, K), before the temperature."""
    maps: npt.NDArray[np.float32] | None
    """Class-activation maps (N, K, h, w), 0 or more: for each class, where the evidence for it lies (Grad-CAM, coarse)."""
    threshold: float | None = None
    """Of a multi-label network: the probability above which it answers a label; None: it answers the likeliest class."""

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Whether each class is in the answer, (N, K)."""
        if self.threshold is None:
            return np.asarray(self.probabilities.argmax(axis=1)[:, None] == np.arange(len(self.classes)))
        return self.probabilities > self.threshold

    @property
    def labels(self) -> list[str]:
        """The likeliest class of each image; of a multi-label network all its labels, a|b|c in the order of the classes."""
        return [LABEL_SEPARATOR.join(self.classes[k] for k in np.flatnonzero(row)) for row in self.answered]

    @property
    def label_sets(self) -> list[list[tuple[str, float]]]:
        """The classes of each image's answer with their probabilities, the likeliest first: one, or of a multi-label any."""
        return [best[:count] for best, count in zip(self.top(len(self.classes)), self.answered.sum(axis=1), strict=True)]

    @property
    def confidences(self) -> npt.NDArray[np.float32]:
        """The probability (N,) of each whole answer: of the likeliest class, or that all labels are right and none is missing.

        The latter takes labels for independent of each other: it is the product of their p, and of 1 - p of all others.
        """
        if self.threshold is None:
            return np.asarray(self.probabilities.max(axis=1))
        return np.asarray(np.where(self.answered, self.probabilities, 1 - self.probabilities).prod(axis=1))

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
        except IsADirectoryError:
            raise SettingsError(f"{self.path}: is a folder; name the file, such as RUN/export/model.onnx") from None
        except OSError as error:
            raise SettingsError(f"{self.path}: {error.strerror}; {REMEDY}") from None
        except Exception as error:  # ONNX Runtime's own kinds have no common base
            raise SettingsError(f"{self.path}: not a usable ONNX file ({str(error).splitlines()[0]}); {REMEDY}") from None
        self.facts = _facts(self._session.get_modelmeta().custom_metadata_map)
        named = {output.name for output in self._session.get_outputs()}
        self.outputs = tuple(name for name in OUTPUTS if name in named)
        inputs = [(entry.name, entry.type) for entry in self._session.get_inputs()]
        if inputs != [("images", "tensor(uint8)")] or "probabilities" not in named:
            raise SettingsError(f"{self.path}: takes no images (uint8) or answers no probabilities; {REMEDY}")
        try:
            self.classes = tuple(map(str, self.facts["classes"]))
            height, width, channels = map(int, self.facts["preprocessing"]["image_shape"])
            self.threshold = float(self.facts["threshold"]) if "threshold" in self.facts else None
        except (KeyError, TypeError, ValueError):
            raise SettingsError(f"{self.path}: its metadata lack classes or preprocessing; {REMEDY}") from None
        self.image_shape = height, width, channels
        try:
            (first,) = self._session.run(["probabilities"], {"images": np.zeros((1, *self.image_shape), np.uint8)})
            fits = channels in MODES and first.shape == (1, len(self.classes)) and first.dtype == np.float32
        except Exception:  # ONNX Runtime's own kinds again
            fits = False
        if not fits:
            raise SettingsError(f"{self.path}: answers otherwise than its metadata say; {REMEDY}")

    def __call__(self, images: Sequence[Image] | Image, batch: int = BATCH) -> Predictions:
        """Returns the answers for images, given as files or as pixels of any sizes, `batch` at a time.

        Raises DataError for a file that is no image, SettingsError for pixels of another form.
        """
        if isinstance(images, str | Path):
            images = [images]
        found: dict[str, Any] = {"probabilities": np.empty((len(images), len(self.classes)), np.float32)}
        for part in in_batches(((index, self.read(image)) for index, image in enumerate(images)), batch):
            by_shape: dict[tuple[int, ...], list[tuple[int, Pixels]]] = {}
            for index, pixels in part:
                by_shape.setdefault(pixels.shape, []).append((index, pixels))
            for alike in by_shape.values():
                answers = self._session.run(self.outputs, {"images": np.stack([pixels for _, pixels in alike])})
                for name, values in zip(self.outputs, answers, strict=True):
                    whole = found.setdefault(name, np.empty((len(images), *values.shape[1:]), values.dtype))
                    whole[[index for index, _ in alike]] = values
        return Predictions(self.classes, found["probabilities"], found.get("logits"), found.get("maps"), self.threshold)

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


def in_batches(images: Iterable[tuple[Key, Pixels]], batch: int) -> Iterator[list[tuple[Key, Pixels]]]:
    """Yields keyed images in lists of at most `batch`, of fewer where they are large: never many of those are in memory."""
    part: list[tuple[Key, Pixels]] = []
    area = 0
    for key, pixels in images:
        size = pixels.shape[0] * pixels.shape[1]
        if part and (len(part) == batch or area + size > HELD_PIXELS):
            yield part
            part, area = [], 0
        part.append((key, pixels))
        area += size
    if part:
        yield part


def _facts(metadata: dict[str, str]) -> dict[str, Any]:
    """Returns the metadata, of which lists and objects are JSON."""
    facts: dict[str, Any] = dict(metadata)
    for key, text in metadata.items():
        if text[:1] in ("[", "{"):
            with contextlib.suppress(ValueError):
                facts[key] = json.loads(text)
    return facts
