"""What training starts from: the splits of the data, a fresh network with its optimizer, the loader of its images."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sprintnet.autoconfig import DatasetFacts, resolve
from sprintnet.config import Config
from sprintnet.data.builtin import cache
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.custom.load import load_custom
from sprintnet.data.custom.split import assign_splits
from sprintnet.data.dataset import ImageDataset, channel_statistics, class_weights, digest
from sprintnet.data.loader import Loader, Normalisation
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import Splits, drop_duplicates, read_splits, stratified_sample, write_splits
from sprintnet.errors import SettingsError
from sprintnet.evaluation.task import task_of
from sprintnet.models.factory import build_model, check_resolution
from sprintnet.models.sprintnet import SprintNet
from sprintnet.models.transfer import load_pretrained
from sprintnet.runs.folder import RunFolder, read_json
from sprintnet.runs.io import write_json
from sprintnet.runtime import Runtime
from sprintnet.training.optim import build_optimizer
from sprintnet.training.step import Step

WHITENING_IMAGES = 5000


def load_splits(config: Config, log: Callable[[str], None] = print, kept: Path | None = None, test: bool = False) -> Splits:
    """Returns the data of these settings: train, val where a part is held out, test.

    One's own pictures come without their test set unless `test` asks for it: a run is not to see it. `kept` is the file of
    splits, which is read where it is there (of one's own pictures), and else written. Raises DataError where data cannot be
    had, SettingsError for an empty hold-out.
    """
    data = config.data
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        log(f"data: {text}")

    if data.name in BUILTIN_DATASETS:
        splits = _named(data, log, note)
    else:
        own = load_custom(data)
        if kept and kept.exists():
            splits = read_splits(kept, own.images)
        else:
            for text in own.notes:
                note(text)
            splits = assign_splits(own, data, note)
    if kept and not kept.exists():
        test_set = {"test_sha256": digest(splits["test"])} if data.name not in BUILTIN_DATASETS and "test" in splits else {}
        write_json(RunFolder(kept.parent).data, {"notes": notes, **test_set})
        write_splits(kept, splits)
    if data.name not in BUILTIN_DATASETS and not test:
        splits.pop("test", None)
    return splits


def _named(data: DataSettings, log: Callable[[str], None], note: Callable[[str], None]) -> Splits:
    train, test = cache.load(data.name, data.source, log)
    if not data.val:
        splits = {"train": train, "test": test}
    else:
        chosen = stratified_sample(train.labels, data.val)
        if not chosen.any():
            raise SettingsError(f"data.val={data.val:g}: less than one image a class; hold out a larger share, or none (0)")
        splits = {"train": train.take(np.flatnonzero(~chosen)), "val": train.take(np.flatnonzero(chosen)), "test": test}
    if data.dedupe:
        splits, left_out = drop_duplicates(splits)
        note(f"{sum(left_out.values()):,} duplicates left out (data.dedupe)")
    return splits


def require_same_splits(splits: Splits, run: RunFolder, argument: str) -> None:
    """Raises SettingsError, about what was asked for, where these are not the splits of the run."""
    unseen = read_json(run.data).get("test_sha256") if run.data.exists() else None  # of a test set that training does not see
    seen = [part for name, part in splits.items() if not unseen or name != "test"]
    is_other_test = unseen and "test" in splits and digest(splits["test"]) != unseen
    if is_other_test or digest(*seen) != read_json(run.environment)["data_sha256"]:
        raise SettingsError(
            f"{argument}: these are not the splits that the run was trained on, and answers about others would be taken for "
            "its own; restore the data, and leave out overrides of data"
        )


def dataset_outline(config: Config) -> tuple[tuple[str, ...], tuple[int, int, int], int]:
    """Returns the class names, (height, width, channels) and number of training images; a named data set is not fetched."""
    if known := BUILTIN_DATASETS.get(config.data.name):
        return known.classes, known.image_shape, known.images[0]
    images = load_splits(config, log=lambda line: None)["train"]
    return images.classes, images.image_shape, len(images)


def resolve_auto(
    config: Config, classes: Sequence[str], image_shape: tuple[int, int, int], images: int
) -> tuple[Config, tuple[str, ...]]:
    """Returns the settings fitted to so many training images, and a line for each change that says what and why."""
    start = load_pretrained(config.init_from).settings if config.init_from else None
    return resolve(config, DatasetFacts(images, len(classes), min(image_shape[:2]), start))


def build_step(
    config: Config, images: ImageDataset, context: Runtime, log: Callable[[str], None] = lambda line: None
) -> tuple[Step, Loader]:
    """Returns the training step of a network, fresh (not whitened yet) or from `init`, and the loader of its training images.

    A network from `init` keeps its normalisation, which its first layer was fitted to. Raises SettingsError for settings that
    do not fit the images.
    """
    if len(images) // -(-len(images) // config.batch_size) < 2:
        raise SettingsError(
            f"batch_size={config.batch_size}: leaves one of the {len(images):,} training images alone in a batch, too few for "
            f"batch norm; use {config.batch_size + 1}"
        )
    if config.augment.cutout > min(images.image_shape[:2]):
        raise SettingsError(f"augment.cutout={config.augment.cutout}: larger than the images; use at most half their side")
    if images.multi_label and (config.class_weights, config.sampling) != ("none", "all"):
        raise SettingsError(
            f"class_weights={config.class_weights}, sampling={config.sampling}: these images may have several labels, and so "
            "are in no one class; use none and all"
        )
    check_resolution(config.model, images.image_shape, min(config.schedule.resolution))
    network = build_model(config.model, len(images.classes), images.image_shape)
    if config.init_from:
        origin = load_pretrained(config.init_from)
        log(origin.transfer_to(network, config.model, images.classes, images.image_shape[2]))
        normalisation = Normalisation(origin.mean, origin.std)
    else:
        normalisation = Normalisation(*channel_statistics(images))
    if config.freeze_backbone:
        network.freeze()
    model = context.place(network)
    optimizer = build_optimizer(model, config.optim.scaled_to(config.batch_size), config.muon)
    loader = Loader(images, normalisation, config.batch_size, context.device, is_balanced=config.sampling == "balanced")
    weights = None
    if config.class_weights == "balanced":
        weights = torch.from_numpy(class_weights(images.labels, len(images.classes))).to(context.device)
    return Step(model, optimizer, context, config.label_smoothing, config.l1, task_of(images), weights), loader


def whiten(model: nn.Module, loader: Loader, config: Config) -> float:
    """Fits a whitening layer, where a fresh network has one, to the first training images; returns the seconds that it took."""
    started = time.monotonic()
    if isinstance(model, SprintNet) and not config.init_from:
        model.whiten_from(loader.first(WHITENING_IMAGES))
    return time.monotonic() - started
