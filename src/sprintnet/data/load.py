"""The splits of a dataset, built-in or custom, as settings name it; torch is not needed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sprintnet.data.builtin import cache
from sprintnet.data.builtin.cache import Log
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.cross_validation import hold_out_fold, pooled
from sprintnet.data.custom.load import load_custom
from sprintnet.data.custom.split import assign_splits
from sprintnet.data.dataset import ImageDataset, digest
from sprintnet.data.images import convert_pixels
from sprintnet.data.preprocessing import Preprocessing
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import Splits, drop_duplicates, read_splits, stratified_sample, write_splits
from sprintnet.errors import ArgumentError, SettingsError
from sprintnet.runs.folder import RunFolder, read_json
from sprintnet.runs.io import write_json
from sprintnet.runs.shards import part_of

HELD_OUT_IMAGES, MAX_HELD_OUT = 1_000, 0.1
"""Images of a built-in dataset that are held out by default, but not more than this fraction."""


def load_splits(settings: DataSettings, log: Log = print, run: RunFolder | None = None, test: bool = False) -> Splits:
    """Returns train, val (where a part is held out) and test; of a custom dataset the test split only if `test` asks for it.

    The splits of a custom dataset are read from the run's splits.csv if it exists; otherwise they are written there. Raises
    DataError if the data cannot be obtained, SettingsError for an empty split.
    """
    is_builtin = settings.name in BUILTIN_DATASETS
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        log(f"data: {text}")

    if is_builtin:
        if Path(settings.name).exists():
            note(f"the built-in dataset {settings.name}; for the folder of that name, write ./{settings.name}")
        splits = _split_builtin(replace(settings, fold=""), log, note)  # the order of the images is that of a run without folds
    else:
        custom = load_custom(settings)
        if run and run.splits.exists():
            return _without_test(read_splits(run.splits, custom.images), test)
        for text in custom.notes:
            note(text)
        splits = assign_splits(custom, settings, note)
    digests = {}
    if part := part_of(settings.fold):
        images = pooled(splits)
        splits, digests["folds_sha256"] = hold_out_fold(images, *part), digest(images)
    if run and not run.splits.exists():
        if not is_builtin and "test" in splits:
            digests["test_sha256"] = digest(splits["test"])
            log(f"data: {len(splits['test']):,} test images, which training does not load")
        write_json(run.data, {"notes": notes, **digests})
        write_splits(run.splits, splits)
    return splits if is_builtin else _without_test(splits, test)


def _without_test(splits: Splits, test: bool) -> Splits:
    return {name: part for name, part in splits.items() if name != "test" or test}


def held_out_fraction(settings: DataSettings, images: int) -> float:
    """Returns the fraction of a built-in dataset's training images that is held out."""
    if part := part_of(settings.fold):
        return 1 / part[1]
    return min(MAX_HELD_OUT, HELD_OUT_IMAGES / images) if settings.val == "auto" else settings.val


def require_same_splits(splits: Splits, run: RunFolder, argument: str) -> None:
    """Raises SettingsError, naming the argument, where these are not the splits of the run."""
    hidden = read_json(run.data).get("test_sha256") if run.data.exists() else None  # of a test set that training did not load
    seen = [part for name, part in splits.items() if not hidden or name != "test"]
    is_other_test = hidden and "test" in splits and digest(splits["test"]) != hidden
    if is_other_test or digest(*seen) != read_json(run.environment)["data_sha256"]:
        raise SettingsError(
            f"{argument}: these are not the splits that {run.path} was trained on; restore the data, and drop overrides of data"
        )


def _split_builtin(settings: DataSettings, log: Log, note: Log) -> Splits:
    train, test = cache.load(settings.name, settings.source, log)
    splits = {"train": train, "test": test}
    held_out = stratified_sample(train.labels, held_out_fraction(settings, len(train)))
    if settings.val not in ("auto", 0) and not held_out.any():
        raise SettingsError(f"data.val={settings.val:g}: less than one image per class; use a larger fraction, or none (0)")
    if held_out.any():
        splits = {"train": train.take(np.flatnonzero(~held_out)), "val": train.take(np.flatnonzero(held_out)), "test": test}
    if settings.dedupe:
        splits, dropped = drop_duplicates(splits)
        note(f"{sum(dropped.values()):,} duplicates left out (data.dedupe)")
    return splits


def load_labelled(settings: DataSettings, preprocessing: Preprocessing, split: str | None = None) -> ImageDataset:
    """Returns all images of a dataset, or those of one split, in a model's image shape and with its classes. Raises
    SettingsError for classes that the model does not know, or a split that the dataset does not have."""
    height, width, channels = preprocessing.image_shape
    if settings.name in BUILTIN_DATASETS:
        parts = cache.load(settings.name, settings.source)
        pixels, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
        images, split_of = ImageDataset(pixels, labels, parts[0].classes), np.repeat(["train", "test"], [*map(len, parts)])
    else:
        like_model: dict[str, Any] = {"channels": {1: "grey", 3: "rgb", 4: "rgba"}[channels], "resize": preprocessing.resize}
        custom = load_custom(replace(settings, size=height if height == width else 0, **like_model), for_training=False)
        images, split_of = custom.images, np.array(custom.split)
    if unknown := [name for name in images.classes if name not in preprocessing.classes]:
        theirs, ours = (f"{', '.join(names[:5])}{', ...' * (len(names) > 5)}" for names in (unknown, preprocessing.classes))
        raise SettingsError(f"data.name={settings.name}: its classes {theirs} are none of the model's: {ours}; use other data")
    if split and split not in split_of:
        raise ArgumentError("split", split, f"{settings.name} has no such split; leave it out to use all images")
    if split:
        images = images.take(np.flatnonzero(split_of == split))
    if images.image_shape != preprocessing.image_shape:
        shape, resize = preprocessing.image_shape, preprocessing.resize
        resized = [convert_pixels(image, shape, resize) for block in images.blocks() for image in block]
        images = replace(images, storage=np.stack(resized), rows=None)
    index = np.array([preprocessing.classes.index(name) for name in images.classes])
    if images.multi_label:
        labels = np.zeros((len(images), len(preprocessing.classes)), np.uint8)
        labels[:, index] = images.labels
    else:
        labels = index[images.labels]
    return replace(images, labels=labels, classes=preprocessing.classes)
