"""What training starts from: the splits of the data, a fresh network with its optimizer, the loader of its images."""

import time
from collections.abc import Callable

import torch
from torch import nn

from sprintnet.config import Config
from sprintnet.data import sources
from sprintnet.data.dataset import ImageDataset, channel_statistics, hold_out
from sprintnet.data.loader import Loader, Normalisation
from sprintnet.errors import SettingsError
from sprintnet.models.build import build_model, check_resolution
from sprintnet.models.sprintnet import SprintNet
from sprintnet.runtime import Runtime
from sprintnet.training.optim import build_optimizer
from sprintnet.training.step import Step

WHITENING_IMAGES = 5000
SPLIT_SEED = 0
"""Draws the held-out images: the same ones in runs of other seeds, so that a study's runs share their data."""

Splits = dict[str, ImageDataset]
"""The data of a run: train and test, and val where a part of the training set is held out."""


def load_splits(config: Config, log: Callable[[str], None] = print) -> Splits:
    """Returns the data of these settings; raises DataError where it cannot be had, SettingsError for an empty hold-out."""
    train, test = sources.load(config.data.name, config.data.source, log)
    if not config.data.val:
        return {"train": train, "test": test}
    kept, held_out = hold_out(train, config.data.val, SPLIT_SEED)
    if not len(held_out):
        raise SettingsError(f"data.val={config.data.val:g}: less than one image a class; hold out a larger share, or none (0)")
    return {"train": kept, "val": held_out, "test": test}


def prepare(config: Config, images: ImageDataset, context: Runtime) -> tuple[Step, Loader]:
    """Returns the training step of a fresh network, not whitened yet, and the loader of its training images.

    Raises SettingsError for settings that do not fit the images.
    """
    if len(images) // -(-len(images) // config.batch_size) < 2:
        raise SettingsError(
            f"batch_size={config.batch_size}: leaves one of the {len(images):,} training images alone in a batch, too few for "
            f"batch norm; use {config.batch_size + 1}"
        )
    if config.augment.cutout > min(images.image_shape[:2]):
        raise SettingsError(f"augment.cutout={config.augment.cutout}: larger than the images; use at most half their side")
    check_resolution(config.model, images.image_shape, min(config.schedule.resolution))
    model = on_device(build_model(config.model, len(images.classes), images.image_shape), context)
    optimizer = build_optimizer(model, config.optim.scaled_to(config.batch_size), config.muon)
    loader = Loader(images, Normalisation(*channel_statistics(images.images)), config.batch_size, context.device)
    return Step(model, optimizer, context, config.label_smoothing, config.l1), loader


def whiten(model: nn.Module, loader: Loader) -> float:
    """Fits a whitening layer, where the network has one, to the first training images; returns the seconds that it took."""
    started = time.monotonic()
    if isinstance(model, SprintNet):
        model.whiten_from(loader.first(WHITENING_IMAGES))
    return time.monotonic() - started


def on_device(model: nn.Module, context: Runtime) -> nn.Module:
    """Returns the network on its device, in channels_last."""
    return model.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
