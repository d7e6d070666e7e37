"""Predictions from an exported ONNX file, with ONNX Runtime and NumPy alone."""

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sprintnet.data.images import PIL_MODES, as_pixels, each_image
from sprintnet.data.preprocessing import Preprocessing, View
from sprintnet.deploy.predictions import OUTPUTS, Floats, Predictions
from sprintnet.errors import ArgumentError, SettingsError
from sprintnet.runs.cores import usable_threads

BATCH = 64
MAX_BATCH_PIXELS = 4_000_000  # a batch is complete when its images have so many pixels together
JSON_METADATA = ("preprocessing", "metrics", "parity")
DIGEST, NO_DIGEST = "sha256", "0" * 64  # of the file, in its metadata
TRIAL_SECONDS = 20.0  # for the first two images
MAX_MODEL_SIDE = 4096  # of a model's images
LOG_NOTHING = 4  # ONNX Runtime's log level without messages; errors are raised all the same
REMEDY = "create one with `sprintnet export RUN`"

Pixels = npt.NDArray[np.uint8]
Input = str | os.PathLike[str] | Image.Image | npt.NDArray[Any]
"""One image: a file, a PIL image, or an array (H, W, C) or (H, W) of any size, uint8 or floats in 0..1."""


class Predictor:
    """An exported file, loaded: `Predictor("model.onnx")(images)`. Safe to call from several threads at once.

    `metadata` contains the recipe, metrics, parity and more. `threads`: of a prediction; 0: one for each available core, at
    most OMP_NUM_THREADS. With `tta=True` the logits of shifted and mirrored views of each image are averaged (test-time
    augmentation).

    Raises SettingsError for a file that is missing, damaged or not written by `sprintnet export`, and for `tta` with a file
    that lacks logits or was exported with TTA.
    """

    def __init__(self, path: str | Path, threads: int = 0, tta: bool = False):
        import onnxruntime  # not above: RunPredictor works without it

        self.path = Path(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = LOG_NOTHING
        options.intra_op_num_threads = threads or usable_threads()  # ONNX Runtime knows neither quotas nor OMP_NUM_THREADS
        try:
            content = self.path.read_bytes()  # from memory, so that the file cannot refer to other files
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            named = {output.name for output in self._session.get_outputs()}
            inputs = [(entry.name, entry.type) for entry in self._session.get_inputs()]
            metadata = self._session.get_modelmeta().custom_metadata_map
        except IsADirectoryError:
            raise SettingsError(f"{self.path}: is a folder; name the file, such as RUN/export/model.onnx") from None
        except OSError as error:
            raise SettingsError(f"{self.path}: {error.strerror}; {REMEDY}") from None
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            cause = (str(error).splitlines() or [type(error).__name__])[0]
            raise SettingsError(f"{self.path}: not a usable ONNX file ({cause}); {REMEDY}") from None
        if (digest := metadata.pop(DIGEST, None)) and content_digest(content, digest) != digest:
            raise SettingsError(f"{self.path}: damaged: its content is not what was exported; restore it, or {REMEDY}")
        self.outputs = tuple(name for name in OUTPUTS if name in named)
        if inputs != [("images", "tensor(uint8)")] or "probabilities" not in named:
            raise SettingsError(f"{self.path}: has no input `images` (uint8) or no output `probabilities`; {REMEDY}")
        try:
            self.metadata = {key: parse_json(text) if key in JSON_METADATA else text for key, text in metadata.items()}
            self.preprocessing = Preprocessing.from_metadata(self.metadata["preprocessing"])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            raise SettingsError(f"{self.path}: has no usable preprocessing in its metadata; {REMEDY}") from None
        self.threshold = self.preprocessing.threshold
        if tta and self.preprocessing.tta:
            raise ArgumentError("tta", tta, f"{self.path} averages views already, as it was exported; leave it out")
        if tta and self.preprocessing.thresholds:
            raise ArgumentError("tta", tta, f"{self.path} has thresholds of predictions without it; export it again with tta")
        if tta and "logits" not in self.outputs:
            rule = f"{self.path} has no output logits, which are averaged; export it with all outputs, or with tta"
            raise ArgumentError("tta", tta, rule)
        self._views = self.preprocessing.views("all") if tta else ()
        self.preprocessing = self.preprocessing.with_tta("all" if tta else None)
        self._none = self._try()[:0]

    def _try(self) -> Predictions:
        """Returns the predictions for two different images; raises SettingsError where they are not what the metadata say."""
        height, width, channels = self.preprocessing.image_shape
        options = onnxruntime_options()
        timer = threading.Timer(TRIAL_SECONDS, setattr, (options, "terminate", True))  # a graph may have a loop without end
        timer.start()
        try:
            if channels not in PIL_MODES or not (1 <= height <= MAX_MODEL_SIDE and 1 <= width <= MAX_MODEL_SIDE):
                raise ValueError(f"images of {width}x{height}x{channels}")
            black = np.zeros((height, width, channels), np.uint8)
            found = self._predict([black, black + 200], options)
            if found.probabilities.shape != (2, len(self.classes)) or found.probabilities.dtype != np.float32:
                raise ValueError(f"probabilities {found.probabilities.shape}")
        except SettingsError:
            raise
        except Exception as error:  # ONNX Runtime's again
            cause = (str(error).splitlines() or [type(error).__name__])[0]
            raise SettingsError(f"{self.path}: its outputs do not match its metadata ({cause}); {REMEDY}") from None
        finally:
            timer.cancel()
        return found

    def __repr__(self) -> str:
        return f"Predictor({str(self.path)!r}, {len(self.classes)} classes)"

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the probabilities."""
        return self.preprocessing.classes

    def __call__(self, images: Input | Iterable[Input], batch: int = BATCH) -> Predictions:
        """Returns the predictions for one image, an array (N, H, W, C), or any iterable of images; their sizes may differ.
        Raises DataError for a file that cannot be read as an image, SettingsError for any other unusable input."""
        parts = [self._none, *self.stream(images, batch)]
        joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in self.outputs}
        return replace(self._none, **joined)

    def stream(self, images: Input | Iterable[Input], batch: int = BATCH) -> Iterator[Predictions]:
        """Yields the predictions for images, in order, in batches of at most `batch`; reads images as it goes."""
        if batch < 1:
            raise ArgumentError("batch", batch, "must be at least 1")
        yield from map(self._predict, in_batches(map(self.read, each_image(images)), batch))

    def require_sets(self, coverage: float, method: str = "threshold", by_class: bool = False) -> None:
        """Raises ArgumentError where `Predictions.sets` would."""
        self._none.sets(coverage, method, by_class)

    def require_unknown(self, false_alarms: float) -> None:
        """Raises ArgumentError where `Predictions.unknown` would."""
        self._none.unknown(false_alarms)

    def read(self, image: Input) -> Pixels:
        """Returns the pixels of one image in the model's shape (H, W, C), resized by Pillow as in training.

        A large JPEG that is given as a path is decoded at a fraction of its sides; PIL images and arrays are resized whole.
        """
        height, width, channels = self.preprocessing.image_shape
        return as_pixels(image, channels, (height, width), self.preprocessing.resize)

    def _predict(self, images: list[Pixels], options: Any = None) -> Predictions:
        """Returns the predictions for one batch; raises SettingsError where they are not finite."""
        pixels = np.stack(images)
        outputs = dict(zip(self.outputs, self._session.run(self.outputs, {"images": pixels}, options), strict=True))
        if self._views:
            others = [self._session.run(["logits"], {"images": view_of(pixels, view)}, options)[0] for view in self._views[1:]]
            outputs |= self._mean([outputs["logits"], *others])
        if any(len(values) != len(images) or not np.isfinite(values).all() for values in outputs.values()):
            raise SettingsError(f"{self.path}: its predictions are not finite, or not one for each image; {REMEDY}")
        return Predictions(self.preprocessing, **outputs)

    def _mean(self, logits: Sequence[Floats]) -> dict[str, Floats]:
        """Returns the mean logits of the views, and their probabilities."""
        weighted = zip(self._views, logits, strict=True)
        mean = np.sum([np.float32(view.weight) * values for view, values in weighted], axis=0)
        return {"logits": mean, "probabilities": np.asarray(self.preprocessing.probabilities(mean), np.float32)}


def view_of(images: Pixels, view: View) -> Pixels:
    """Returns one view (N, H, W, C) of images, for TTA."""
    border = abs(view.shift)
    padded = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)), "reflect")
    start, (height, width) = border - view.shift, images.shape[1:3]
    shifted = padded[:, start : start + height, start : start + width]
    return shifted[:, :, ::-1] if view.is_mirrored else shifted


def content_digest(content: bytes, digest: str) -> str:
    """Returns the SHA-256 of a file's content, in which zeros stand for the digest that the file has."""
    return hashlib.sha256(content.replace(digest.encode(), NO_DIGEST.encode())).hexdigest()


def onnxruntime_options() -> Any:
    """Returns the options of one run of a session."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = LOG_NOTHING
    return options


def parse_json(text: str) -> Any:
    """Returns the content of JSON; raises ValueError for numbers that are not finite, and for text that cannot be printed."""
    found = json.loads(text)
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()  # also refuses 1e999, and text that is no UTF-8
    return found


def entries(labels: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
    """Returns classes with probabilities as JSON has them."""
    return [{"class": label, "probability": probability} for label, probability in labels]


def in_batches(images: Iterable[Pixels], batch: int) -> Iterator[list[Pixels]]:
    """Yields lists of at most `batch` images; the image that reaches MAX_BATCH_PIXELS is the last of its list."""
    part: list[Pixels] = []
    area = 0
    for pixels in images:
        part.append(pixels)
        area += pixels.shape[0] * pixels.shape[1]
        if len(part) == batch or area >= MAX_BATCH_PIXELS:
            yield part
            part, area = [], 0
    if part:
        yield part
