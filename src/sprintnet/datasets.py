"""Dataset, load_data and from_arrays of the Python API."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sprintnet.config import Config, load_config
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.custom import arrays
from sprintnet.data.custom.load import CustomData, require_available
from sprintnet.data.custom.split import assign_splits
from sprintnet.data.dataset import ImageDataset, first_of_each_class, label_text
from sprintnet.data.load import load_splits
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import Splits
from sprintnet.errors import ArgumentError, SettingsError, python_arguments
from sprintnet.runs import folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


IN_MEMORY = "(arrays)"  # data.name of a dataset in memory
python_names = partial(python_arguments, [name for name in folder.dotted(asdict(Config())) if "." in name])


@dataclass(frozen=True, repr=False)
class TestImages(ImageDataset):
    """A test split, whose evaluations are logged by the run that was trained on the dataset."""

    data_name: str = ""


class Dataset:
    """The splits `train`, `val` and `test`, each an ImageDataset or None; `classes`; `image_shape` (H, W, C)."""

    def __init__(self, settings: DataSettings, splits: Splits):
        self.settings, self.splits = settings, splits
        self.train, self.val = splits["train"], splits.get("val")
        self.test = TestImages(**vars(splits["test"]), data_name=settings.name) if "test" in splits else None
        self.classes, self.image_shape = self.train.classes, self.train.image_shape

    def __repr__(self) -> str:
        sizes, shape = [f"{len(part):,} {name}" for name, part in self.splits.items()], "x".join(map(str, self.image_shape))
        classes = ", ".join(self.classes[:10]) + ", ..." * (len(self.classes) > 10)
        return f"Dataset({self.settings.name}: {', '.join(sizes)}; images {shape}; {len(self.classes)} classes: {classes})"

    def show(self, n: int = 10) -> "Figure":
        """Returns a figure of n training images: the first of each class, then random ones."""
        from sprintnet.reporting.figures.images import examples

        if n < 1:
            raise ArgumentError("n", n, "must be at least 1")
        order = [*first_of_each_class(self.train.labels), *np.random.default_rng(0).permutation(len(self.train))]
        chosen = self.train.take(np.array(list(dict.fromkeys(order))[:n]))
        return examples(chosen.images, label_text(chosen.labels, chosen.classes))


@python_names(data_prefix="", data_name="name")
def load_data(name: str | Path, **settings: Any) -> Dataset:
    """Returns a built-in dataset such as "cifar10", or a custom one: a folder, a table (.csv, .parquet), arrays (.npz).

    Keyword arguments are those of `DataSettings`, such as val=0.1 or size=32. Raises SettingsError or DataError.
    """
    chosen = data_settings(str(name), settings)
    require_available(chosen.name)
    return Dataset(chosen, load_splits(chosen, test=True))


@python_names(data_prefix="", data_name="images")
def from_arrays(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    classes: Sequence[str] | None = None,
    multi_label: bool | None = None,
    **settings: Any,
) -> Dataset:
    """Returns a dataset of images (N, H, W) or (N, H, W, C), uint8 or floats in 0..1, with 1, 3 or 4 channels.

    Labels are integers or text (N,), or 0 and 1 (N, K): several labels per image with `multi_label=True`, by default where
    any image has not exactly one. The fractions `test` (default 0.2) and `val` (0.1) are held out, stratified by class;
    dedupe=True leaves out duplicates of them. Raises SettingsError or DataError.
    """
    chosen = array_settings(settings, "data.val, data.test and data.dedupe")
    data = CustomData(arrays.from_arrays(images, labels, classes, multi_label=multi_label))
    return Dataset(chosen, assign_splits(data, chosen, lambda note: print(f"data: {note}")))


def array_settings(settings: Mapping[str, Any], allowed: str) -> DataSettings:
    """Returns the settings of a dataset in memory; raises SettingsError for one that is not among the allowed."""
    chosen = data_settings(IN_MEMORY, settings)
    if other := [f"data.{key}" for key in settings if f"data.{key}" not in allowed.replace(",", "").split()]:
        raise SettingsError(f"{other[0]}: not for arrays, which take {allowed}; resize or convert the images before")
    return chosen


def same_data(first: str, second: str) -> bool:
    """Returns whether two names of data mean the same: a built-in dataset, or a path, in which ~ is the home folder."""
    if first in BUILTIN_DATASETS or second in BUILTIN_DATASETS:
        return first == second
    # unlike Path.expanduser, this leaves an unknown user as it is
    paths = [Path(os.path.expanduser(name)).resolve() for name in (first, second)]  # noqa: PTH111
    return paths[0] == paths[1]


def data_settings(name: str, settings: Mapping[str, Any]) -> DataSettings:
    """Returns the settings of a dataset from keyword arguments such as val=0.1."""
    return load_config("sprint94", [f"data.name={name}", *to_overrides(settings, "data.")]).data


def to_overrides(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns keyword arguments as overrides: optim__max_lr=0.4 is optim.max_lr=0.4."""
    lists = {key: value if isinstance(value, list | tuple) else [value] for key, value in settings.items()}
    texts = {key: ",".join(str(item).lower() if isinstance(item, bool) else str(item) for item in lists[key]) for key in lists}
    return [f"{prefix}{key.replace('__', '.')}={text}" for key, text in texts.items()]
