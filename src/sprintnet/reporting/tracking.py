"""A run's rows, final metrics and figures for experiment trackers: TensorBoard, trackio, Weights & Biases, MLflow."""

import contextlib
import io
import shutil
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sprintnet.errors import SettingsError
from sprintnet.runs.folder import SPLIT_TITLES, STUDY_FOLDER, RunFolder, dotted, read_epochs, read_json

PROJECT = "sprintnet"
FINAL_METRICS = ("accuracy", "cross_entropy")


class Tracker(ABC):
    """A run in one tracker; its constructor begins it, and may raise anything."""

    @abstractmethod
    def __init__(self, run: RunFolder, settings: Mapping[str, Any]): ...

    @abstractmethod
    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds numbers of an epoch."""

    @abstractmethod
    def image(self, name: str, file: Path, step: int) -> None:
        """Adds a picture, a PNG file."""

    @abstractmethod
    def close(self) -> None:
        """Ends the run; what was added is kept."""


class _TensorBoard(Tracker):
    """Event files in the run's folder; older ones are deleted, since a resumed run repeats its rows."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]):
        shutil.rmtree(run.tensorboard, ignore_errors=True)
        self.writer: Any = import_module("tensorboardX").SummaryWriter(str(run.tensorboard), write_to_disk=True)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def image(self, name: str, file: Path, step: int) -> None:
        with Image.open(file) as image:
            self.writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class _Trackio(Tracker):
    """A local database, which `trackio show` draws."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]):
        self.trackio: Any = import_module("trackio")
        with contextlib.redirect_stdout(io.StringIO()):  # its greeting
            self.trackio.init(
                project=PROJECT,
                name=shown_name(run),
                config=dict(settings),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.trackio.log(dict(values), step=step)

    def image(self, name: str, file: Path, step: int) -> None:
        self.trackio.log({name: self.trackio.Image(file)}, step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.trackio.finish()


class _WeightsAndBiases(Tracker):
    """A run of wandb, with its own settings: WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]):
        self.wandb: Any = import_module("wandb")
        self.run = self.wandb.init(project=PROJECT, name=shown_name(run), config=dict(settings), dir=str(run.path))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def image(self, name: str, file: Path, step: int) -> None:
        self.run.log({name: self.wandb.Image(str(file))}, step=step)

    def close(self) -> None:
        self.run.finish()


class _MLflow(Tracker):
    """A run of MLflow, with its own settings: MLFLOW_TRACKING_URI says where."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]):
        self.mlflow: Any = import_module("mlflow")
        self.mlflow.set_experiment(PROJECT)
        self.mlflow.start_run(run_name=shown_name(run))
        self.mlflow.log_params(dict(settings))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.mlflow.log_metrics(dict(values), step=step)

    def image(self, name: str, file: Path, step: int) -> None:
        self.mlflow.log_artifact(str(file), "figures")

    def close(self) -> None:
        self.mlflow.end_run()


def shown_name(run: RunFolder) -> str:
    """Returns what a tracker calls a run: its folder's name, with that of its study, if any: every study has a seed-0."""
    path = run.path.resolve()
    return f"{path.parent.name}/{path.name}" if path.parent.parent.name == STUDY_FOLDER.name else path.name


TRACKERS: dict[str, tuple[type[Tracker], str]] = {
    "tensorboard": (_TensorBoard, "tensorboardX"),
    "trackio": (_Trackio, "trackio"),
    "wandb": (_WeightsAndBiases, "wandb"),
    "mlflow": (_MLflow, "mlflow"),
}
"""The trackers, and the package of each."""


def require_installed(names: Sequence[str]) -> None:
    """Raises SettingsError for a tracker whose package is not installed."""
    for name in names:
        if find_spec(TRACKERS[name][1]) is None:
            raise SettingsError(f"tracker {name}: needs a package that is not installed: pip install {TRACKERS[name][1]}")


class Tracking:
    """A run in several trackers. One that fails is named and left out from then on; training does not stop for it."""

    def __init__(self, run: RunFolder, names: Sequence[str], log: Callable[[str], object]):
        """Raises SettingsError for a tracker whose package is not installed."""
        require_installed(names)
        self.run, self.log, self.names = run, log, tuple(dict.fromkeys(names))
        self.trackers: dict[str, Tracker] = {}
        self.has_begun, self.epochs = False, 0

    def row(self, row: Mapping[str, Any]) -> None:
        """Adds a row of results.csv: learning rate, losses and accuracies (0..1) by epoch."""
        self.epochs = int(row["epoch"])
        values = {
            f"{metric}/{part}": float(row[f"{part}_{metric}"]) for metric in ("loss", "accuracy") for part in ("train", "val")
        }
        self._each(methodcaller("scalars", {"lr": float(row["lr"]), **values}, self.epochs))

    def finish(self) -> None:
        """Adds the metrics of the finished run and the figures of its plots folder; rows too, where none was added before."""
        if not self.has_begun:
            for row in read_epochs(self.run):
                self.row(row)
        metrics = read_json(self.run.metrics)
        splits = [split for split in SPLIT_TITLES if split in metrics]
        found = {f"final/{split}_{name}": metrics[split][name] for split in splits for name in FINAL_METRICS}
        self._each(methodcaller("scalars", found, self.epochs))
        for file in sorted(self.run.plots.glob("*.png")):
            if not file.stem.endswith("-dark"):
                self._each(methodcaller("image", file.stem, file, self.epochs))
        self._each(methodcaller("close"))

    def _each(self, action: Callable[[Tracker], object]) -> None:
        """Begins the run in each tracker where it has not, and lets each do something."""
        if not self.has_begun:
            self.has_begun = True
            settings = dotted(tomllib.loads(self.run.resolved.read_text("utf-8")))
            for name in self.names:
                with self._guarded(name):
                    self.trackers[name] = TRACKERS[name][0](self.run, settings)
        for name, tracker in list(self.trackers.items()):
            with self._guarded(name):
                action(tracker)

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a tracker may raise anything
            self.trackers.pop(name, None)
            cause = " ".join(str(error).split())[:200] or type(error).__name__
            self.log(f"tracking: {name} failed and gets nothing more: {cause}")
