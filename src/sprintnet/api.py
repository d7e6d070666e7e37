"""The Python API: a thin layer over the other modules; PyTorch and Matplotlib are imported by the functions that need them."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sprintnet.config import Config, load_config
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.custom.load import require_available
from sprintnet.data.dataset import ImageDataset
from sprintnet.data.images import as_pixels, each_image
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import Splits
from sprintnet.datasets import IN_MEMORY, Dataset, TestImages, python_names, same_data, to_overrides
from sprintnet.errors import ArgumentError, SettingsError
from sprintnet.reporting.text.task_scores import accuracy_name, accuracy_with_interval
from sprintnet.runs import folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sprintnet.deploy.predictor import Predictor
    from sprintnet.evaluation.trained_model import TrainedModel

PREDICTION_BATCH = 500


def configure(recipe: Any, data: Any, settings: Mapping[str, Any]) -> tuple[Config, Splits | None]:
    """Returns the settings of a run, and the splits of a dataset in memory, without test."""
    if not isinstance(recipe, str | Path):
        example = 'train("sprint94", data, epochs=10)'
        raise SettingsError(f"recipe: {type(recipe).__name__}; must be a recipe's name or the path of a .toml file: {example}")
    if not isinstance(data, Dataset | str | Path | None):
        raise SettingsError(f"data: {type(data).__name__}; must be a Dataset, a dataset's name or a path")
    overrides = to_overrides(settings)
    if isinstance(data, Dataset):
        if given := [key for key in settings if key.startswith("data__")]:
            raise SettingsError(f"{given[0]}: the Dataset has its settings already; give this to load_data or from_arrays")
        _require_loaded_for(recipe, data.settings)
        overrides += to_overrides(asdict(data.settings), "data.")
    elif data is not None:
        overrides.append(f"data.name={data}")
    config = load_config(recipe, overrides)
    if isinstance(data, Dataset) and data.settings.name == IN_MEMORY:
        return config, {name: part for name, part in data.splits.items() if name != "test"}
    require_available(config.data.name)
    return config, None


def _require_loaded_for(recipe: str | Path, given: DataSettings) -> None:
    """Raises SettingsError for images of a folder or table that were not loaded in the size that the recipe asks for."""
    wanted, default = load_config(recipe).data, DataSettings()
    if given.size or not wanted.size or given.name == IN_MEMORY or given.name in BUILTIN_DATASETS:
        return
    chosen = {key: value for key, value in asdict(given).items() if key != "name" and value != getattr(default, key)}
    arguments = {**{key: getattr(wanted, key) for key in ("size", "resize", "channels")}, **chosen}
    words = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    raise SettingsError(
        f"data: was loaded without the size that the recipe {recipe} asks for; use load_data({given.name!r}, {words}), "
        f"or give the name itself: data={given.name!r}"
    )


@python_names()
def train(
    recipe: str | Path = "sprint94", data: Any = None, *, name: str | None = None, resume: bool = False, **settings: Any
) -> "Model":
    """Returns a model trained by a recipe, in a new run folder runs/train/NAME.

    `data` is a Dataset, a dataset's name or a path; default: the recipe's. Keyword arguments are settings of the recipe, with
    __ for the dot: epochs=3, optim__max_lr=0.4. Raises SettingsError, DataError, DivergedError or Interrupted.
    """
    config, splits = configure(recipe, data, settings)
    from sprintnet.reporting.text.evaluation import result_lines
    from sprintnet.training import train as training

    run = folder.train_folder(recipe, name, resume=resume)
    result = training.train(config, run, resume=resume, splits=splits)
    for line in result_lines(result.metrics, str(run.path)):
        run.log(line)
    return Model(result.model, run, splits)


@python_names()
def load(path: str | Path) -> "Model | Predictor":
    """Returns the Model of a run (folder or name), a weights file or an export folder, or the Predictor of an .onnx file."""
    path = Path(path)
    if path.suffix == ".onnx":
        from sprintnet.deploy.predictor import Predictor

        return Predictor(path)
    from sprintnet.evaluation import trained_model

    if path.is_file() or (path / "model.safetensors").is_file():
        return Model(trained_model.load(path))
    run = folder.open_run(path)
    return Model(trained_model.load_run(run.path)[0], run)


class Model:
    """A trained model, from `train` or `load`; without a run folder (weights alone) it has no metrics, figures and export.

    Images are a path, a PIL image, an array (H, W), (H, W, C) or (N, H, W, C) of uint8 or of floats in 0..1, a split, or any
    iterable of the first three. They may have any size.
    """

    def __init__(self, trained: "TrainedModel", run: folder.RunFolder | None = None, splits: Splits | None = None):
        self._trained, self._run_folder, self._splits = trained, run, splits
        self.classes, self.run = trained.classes, run and run.path

    def __repr__(self) -> str:
        if self._run_folder is None:
            return f"Model({len(self.classes)} classes, without a run folder)"
        split = folder.evaluation_split(self.metrics)
        result = f"{split} {accuracy_name(self.metrics[split])} {accuracy_with_interval(self.metrics[split])}"
        members = f"ensemble of {len(self.metrics['ensemble']['members'])}, " if "ensemble" in self.metrics else ""
        return f"Model({members}{self.config.model.name}, epochs={self.config.epochs}: {result}; {self.run})"

    @property
    def _run(self) -> folder.RunFolder:
        if self._run_folder is None:
            raise SettingsError("this model was loaded without its run folder; load that: load('runs/train/NAME')")
        return self._run_folder

    @property
    def config(self) -> Config:
        """The settings, with `auto` and `lr_find` resolved."""
        return load_config(self._run.resolved)

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json: metrics by split, training time and more."""
        return folder.read_json(self._run.metrics)

    @property
    def history(self) -> Any:
        """A row for each epoch, none of an ensemble: a DataFrame if pandas is installed, else a list of dicts."""
        text = folder.read_epochs(self._run)
        rows = [{key: int(cell) if cell.isdigit() else float(cell) for key, cell in row.items()} for row in text]
        if find_spec("pandas"):
            import pandas

            return pandas.DataFrame(rows)
        return rows

    @python_names()
    def evaluate(self, split: ImageDataset, tta: float | None = None) -> dict[str, Any]:
        """Returns the metrics of a split, such as data.test, whose evaluations are logged in the run's test_access.csv.

        `tta`: predict images of this confidence or less with test-time augmentation; default: the recipe's.
        """
        if not isinstance(split, ImageDataset):
            raise SettingsError(f"split: {type(split).__name__}; must be a split that the dataset has, such as data.train")
        tta = tta if tta is not None else self.config.tta if self._run_folder else 0.0
        metrics = self._trained.evaluate(split, tta).metrics(self._trained.preprocessing)
        if self._run_folder and isinstance(split, TestImages) and same_data(split.data_name, self.config.data.name):
            folder.log_test_access(self._run_folder, "Model.evaluate", metrics)
        return metrics

    @python_names()
    def predict(self, images: Any) -> list[Any]:
        """Returns the class name of each image; of a multi-label model, lists of class names."""
        predicted = self._trained.task.predictions(self._logits(images))
        names = np.array(self.classes)
        return names[predicted].tolist() if predicted.ndim == 1 else [names[row == 1].tolist() for row in predicted]

    @python_names()
    def predict_proba(self, images: Any) -> npt.NDArray[np.float32]:
        """Returns probabilities (N, K), calibrated if images were held out in training."""
        return np.asarray(self._trained.preprocessing.probabilities(self._logits(images)), np.float32)

    @python_names()
    def predict_sets(
        self, images: Any, coverage: float = 0.9, method: str = "threshold", by_class: bool = False
    ) -> list[list[str]]:
        """Returns a set of classes for each image, most probable first: `coverage` of images have their class in it.

        See `Predictions.sets` for `method` and `by_class`, and for what raises ArgumentError.
        """
        from sprintnet.deploy.predictions import Predictions

        found = Predictions(self._trained.preprocessing, self.predict_proba(images))
        return [[label for label, _ in labels] for labels in found.sets(coverage, method, by_class)]

    def _logits(self, images: Any) -> npt.NDArray[np.float32]:
        pixels, parts = self._read(images), [np.empty((0, len(self.classes)), np.float32)]
        while batch := list(islice(pixels, PREDICTION_BATCH)):
            parts.append(self._trained.predict_logits(np.stack(batch)))
        return np.concatenate(parts)

    def _read(self, images: Any) -> Iterator[npt.NDArray[np.uint8]]:
        """Yields the pixels of each image, in the shape of the model."""
        if isinstance(images, ImageDataset):
            images = (image for block in images.blocks() for image in block)
        (height, width, channels), policy = self._trained.preprocessing.image_shape, self._trained.preprocessing.resize
        return (as_pixels(image, channels, (height, width), policy) for image in each_image(images))

    @python_names()
    def plot(self, name: str) -> "Figure":
        """Returns a figure of the run, such as confusion_matrix; the error for an unknown name lists all."""
        from sprintnet.reporting.figures.run_figures import figure

        return figure(self._run, name)

    @python_names()
    def explain(self, images: Any, n: int = 8, target_class: str = "predicted") -> "Figure":
        """Returns a figure of n images (of a split: evenly spaced) with Grad-CAM maps; target: predicted, true or a class."""
        from sprintnet.evaluation.explain import explain
        from sprintnet.reporting.figures.images import grad_cam

        if isinstance(images, ImageDataset):
            images = images.take(np.linspace(0, len(images) - 1, min(n, len(images))).astype(np.int64))
        labels = images.labels if isinstance(images, ImageDataset) else None
        if not (pixels := list(islice(self._read(images), max(n, 0)))):
            raise ArgumentError("n", n, "at least 1 image is needed")
        found = explain(self._trained, np.stack(pixels), labels, target_class)
        return grad_cam(found.images, found.maps, found.predictions)

    @python_names()
    def report(self) -> Path:
        """Writes report.html into the run folder and returns its path."""
        from sprintnet.evaluation.explain import explain_wrong
        from sprintnet.reporting.html.report import write_report

        if not self._run.explanations.exists():
            explain_wrong(self._run, self._trained)
        return write_report(self._run)

    @python_names()
    def export(
        self,
        path: str | Path | None = None,
        quantize: str | None = None,
        license: str = "unknown",
        tta: str | None = None,
        *,
        min_precision: float | None = None,
        cost: float | Mapping[str, float] | None = None,
    ) -> Path:
        """Writes the run's export folder; returns its ONNX file (with `quantize` that of fp16 or int8), or a copy at `path`.

        With `tta`, flip or all, the file averages the mirrored image, or all views, too (test-time augmentation). With
        `min_precision`, or the `cost` of a wrong prediction (of all classes, or by class) where one that is not made costs 1,
        the file has a threshold for each class. Raises ParityError if its predictions differ from the model's.
        """
        from sprintnet.deploy.export.export import FP32_FILE, export
        from sprintnet.evaluation.thresholds import ThresholdRule

        costs = {} if cost is None else cost if isinstance(cost, Mapping) else {"": cost}
        rule = ThresholdRule(min_precision, costs)
        if quantize not in (None, "fp16", "int8"):
            raise ArgumentError("quantize", quantize, "must be fp16 or int8, or None")
        if path and Path(path).suffix != ".onnx":
            raise ArgumentError("path", str(path), "must end in .onnx")
        if path and not Path(path).parent.is_dir():
            raise ArgumentError("path", str(path), "is in no folder that exists; create it first")
        export(self._run.path, [quantize] if quantize else [], license=license, tta=tta, splits=self._splits, rule=rule)
        file = self._run.export / (f"model-{quantize}.onnx" if quantize else FP32_FILE)
        return file if path is None else Path(shutil.copy(file, path))
