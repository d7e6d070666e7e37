"""What training starts from: a network with its optimizer, and the loader of its images."""

import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import nn

from sprintnet.autoconfig import DatasetFacts
from sprintnet.config import Config
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.dataset import ImageDataset, channel_statistics, class_weights
from sprintnet.data.load import held_out_fraction, load_splits
from sprintnet.data.loader import Loader
from sprintnet.data.preprocessing import Normalisation
from sprintnet.errors import SettingsError
from sprintnet.evaluation.task import task_of
from sprintnet.kernels.batchnorm import BatchNorm2d
from sprintnet.models.factory import build_model, check_resolution
from sprintnet.models.sprintnet import SprintNet
from sprintnet.models.transfer import Pretrained
from sprintnet.runtime import Runtime
from sprintnet.training.average import Average
from sprintnet.training.distill import soft_labels
from sprintnet.training.optim import build_optimizer
from sprintnet.training.step import Step

WHITENING_IMAGES = 5000


def dataset_facts(config: Config, pretrained: Pretrained | None) -> DatasetFacts:
    """Returns what is known of the training set; a built-in dataset is not fetched for it."""
    settings = pretrained.saved.settings if pretrained else None
    if known := BUILTIN_DATASETS.get(config.data.name):
        kept = round(known.images[0] * (1 - held_out_fraction(config.data, known.images[0])))
        return DatasetFacts(kept, len(known.classes), known.image_shape, settings)
    return DatasetFacts.of(load_splits(config.data, log=lambda line: None)["train"], settings)


def build_step(
    config: Config,
    images: ImageDataset,
    runtime: Runtime,
    pretrained: Pretrained | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[Step, Loader]:
    """Returns the training step of a network, new (not whitened yet) or pretrained, and the loader of its training images.

    A pretrained network keeps its normalisation, which its first layer was fitted to. Raises SettingsError for settings that
    do not fit the images or the device.
    """
    _check(config, images, runtime)
    network = build_model(config.model, len(images.classes), images.image_shape)
    if pretrained:
        log(pretrained.copy_to(network, config.model, images.classes, images.image_shape[2]))
        normalisation = pretrained.saved.preprocessing.normalisation
    else:
        normalisation = Normalisation(*channel_statistics(images))
    if config.head.fit and network.linear.bias is None:
        raise SettingsError(f"head.fit=true: the last layer of {config.model.name} has no bias; use freeze_backbone=true")
    network.keeps_statistics = config.head.fit
    if config.freeze_backbone:
        network.freeze()
    for layer in network.modules():
        if isinstance(layer, BatchNorm2d):
            layer.ranks = runtime.ranks
    model = runtime.place(network)
    optimizer = build_optimizer(model, config.optim.scaled_to(config.batch_size), config.muon)
    is_balanced = config.sampling == "balanced"
    loader = Loader(
        images, normalisation, config.batch_size, runtime.device, is_balanced=is_balanced,
        soft_labels=soft_labels(config.distill, images, runtime), mixes=config.augment.mixes, ranks=runtime.ranks,
    )  # fmt: skip
    if min(loader.batch_sizes) < runtime.ranks.world:
        rule = f"fewer images in a batch than the {runtime.ranks.world} processes; use a larger batch, or fewer processes"
        raise SettingsError(f"batch_size={config.batch_size}: {rule}")
    weights = None
    if config.class_weights == "balanced":
        weights = torch.from_numpy(class_weights(images.labels, len(images.classes))).to(runtime.device)
    average = Average(model, config.ema) if config.ema else None
    task, smoothing = task_of(images), config.label_smoothing
    return Step(model, optimizer, runtime, smoothing, config.l1, task, weights, average, config.scaler), loader


def whiten(model: nn.Module, loader: Loader, config: Config) -> float:
    """Fits the whitening layer, where a new network has one, to the first training images; returns the seconds it took."""
    started = time.monotonic()
    if isinstance(model, SprintNet) and not config.init_from:
        model.whiten_from(loader.first(WHITENING_IMAGES))
    loader.ranks.share_tensors(list(model.state_dict().values()))  # processors of other kinds round differently
    return time.monotonic() - started


def _check(config: Config, images: ImageDataset, runtime: Runtime) -> None:
    """Raises SettingsError for settings that do not fit the images or the device."""
    if config.head.fit and find_spec("scipy") is None:
        raise SettingsError("head.fit=true: needs SciPy, which the extra `pretrained` installs")
    if config.compile and runtime.device.type != "cuda":
        raise SettingsError(f"compile=true: works on cuda alone, and the device is {runtime.device.type}; leave it out")
    if len(images) // -(-len(images) // config.batch_size) < 2:
        raise SettingsError(
            f"batch_size={config.batch_size}: leaves a batch with a single one of the {len(images):,} training images, too few "
            f"for batch norm; use {config.batch_size + 1}"
        )
    if config.augment.cutout > min(images.image_shape[:2]):
        raise SettingsError(f"augment.cutout={config.augment.cutout}: larger than the images; use at most half their side")
    if images.multi_label and (config.class_weights, config.sampling) != ("none", "all"):
        raise SettingsError(
            f"class_weights={config.class_weights}, sampling={config.sampling}: not defined for images with several labels; "
            "use none and all"
        )
    settings_of_one = {
        "compile=true": config.compile,
        f"model.dropout={config.model.dropout:g}": config.model.dropout > 0,
        f"augment.mixup={config.augment.mixup:g}": config.augment.mixup > 0,
        f"augment.cutmix={config.augment.cutmix:g}": config.augment.cutmix > 0,
        f"distill.teacher={config.distill.teacher}": config.distill.teacher,
        "head.fit=true": config.head.fit,
    }
    if runtime.ranks.world > 1 and any(settings_of_one.values()):
        setting = next(text for text, is_set in settings_of_one.items() if is_set)
        raise SettingsError(f"{setting}: is for a single process; leave it out, or start one process")
    check_resolution(config.model, images.image_shape, min(config.schedule.resolution))
