"""Settings that a recipe leaves to the data (`auto`): their values suit CIFAR-10 and are adapted to other datasets."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sprintnet.config import Config
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.dataset import ImageDataset
from sprintnet.models.settings import ModelSettings
from sprintnet.runs.folder import dotted

REFERENCE_SIDE = 32
"""Image side, in pixels, that recipes are made for."""
SMALL_DATASET = 25_000
"""Training images below which batch size and epochs are adapted; CIFAR-10 has more even with a hold-out."""
MANY_CLASSES = 20
"""Classes above which the network is wider."""
WIDTH_FACTOR = 1.5
MAX_CROP_PADDING = 32
FEW_FROM_SCRATCH = 10_000
"""Training images of CIFAR-10 at which training from scratch catches up with pretrained weights (docs/tutorials/photos.md)."""
OF_EPOCHS = ("augment.crop_padding", "augment.cutout")  # of no use without epochs, where the last layer alone is fitted
FINE_TUNED_IMAGES = 1000
"""Training images from which all layers are trained after the last one is fitted: a choice of time, not of accuracy. Three
epochs of 1,000 images enlarged to 160x160 take two minutes on two AVX2 cores."""


@dataclass(frozen=True)
class DatasetFacts:
    """What settings are adapted to: number of training images and classes, (height, width, channels)."""

    images: int
    classes: int
    image_shape: tuple[int, int, int]
    pretrained: ModelSettings | None = None
    """The network that training starts from, if any."""

    @classmethod
    def of(cls, images: ImageDataset, pretrained: ModelSettings | None = None) -> "DatasetFacts":
        """Returns the facts of a training set."""
        return cls(len(images), len(images.classes), images.image_shape, pretrained)


def resolve(config: Config, facts: DatasetFacts) -> tuple[Config, tuple[str, ...]]:
    """Returns the settings with every `auto` replaced by a value for this dataset, and the reason of each change.

    The batch size is never larger than the training set. Resolving again changes nothing.
    """
    given = dotted(asdict(config))
    changes: dict[str, Any] = {}
    reasons = []
    for key, value, reason in _proposals(config, facts):
        if key in config.auto and value != given[key]:
            if key in OF_EPOCHS and not changes.get("epochs", config.epochs):
                continue
            changes[key] = value
            reasons.append(f"{key}={value:g} instead of {given[key]:g}: {reason}")
    if "augment.flip" in config.auto and config.augment.flip and config.data.name not in BUILTIN_DATASETS:
        reasons.append(
            f"augment.flip={config.augment.flip:g} is kept: set augment.flip=0 if a mirrored image means something else"
        )
    if config.auto and facts.images < FEW_FROM_SCRATCH and not config.init_from and config.data.name not in BUILTIN_DATASETS:
        reasons.append(f"{facts.images:,} images are few to train from scratch: for photographs, try the recipe photos")
    if facts.images < changes.get("batch_size", config.batch_size):
        changes["batch_size"] = facts.images
        reasons.append(f"batch_size={facts.images} instead of {config.batch_size}: there are no more training images")
    return config.changed({**changes, "auto": ()}), tuple(reasons)


def _proposals(config: Config, facts: DatasetFacts) -> Iterator[tuple[str, Any, str]]:
    """Yields (setting, value, reason) for each setting that may be `auto`."""
    side = min(facts.image_shape[:2])
    if config.head.fit:
        if facts.images < FINE_TUNED_IMAGES:
            few = f"fewer than {FINE_TUNED_IMAGES:,} training images: the last layer alone is trained"
            yield "epochs", 0, few
    elif facts.images < SMALL_DATASET:
        # a quarter of the images: half the batch size, twice the epochs; as many steps, in half the time
        share = math.sqrt(facts.images / SMALL_DATASET)
        few = f"{facts.images:,} training images are fewer than {SMALL_DATASET:,}"
        yield (
            "batch_size",
            min(facts.images, round(config.batch_size * share)),
            f"{few}, too few steps with the recipe's batch size",
        )
        yield "epochs", round(config.epochs / share), few
    width = config.model.width
    if facts.pretrained:
        reason = f"as in init_from={config.init_from}"
        width = facts.pretrained.width
        yield "model.width", width, reason
        yield "model.stride", facts.pretrained.stride, reason
    else:
        if facts.classes > MANY_CLASSES:
            width = round(WIDTH_FACTOR * width)
            yield "model.width", width, f"{facts.classes} classes are more than {MANY_CLASSES}"
        if config.model.name == "sprintnet":
            stride = max(1, math.floor(side / REFERENCE_SIDE + 0.5))
            yield "model.stride", stride, f"{side} pixels then cost about as much as {REFERENCE_SIDE}"
    if "model.width" in config.auto:
        yield "optim.head_lr", config.optim.head_lr * width / config.model.width, "in proportion to the width"
    for name, largest in (("crop_padding", MAX_CROP_PADDING), ("cutout", side)):
        pixels = min(largest, round(getattr(config.augment, name) * side / REFERENCE_SIDE))
        yield f"augment.{name}", pixels, f"in proportion to the image side of {side} pixels"
    if config.data.name in BUILTIN_DATASETS and not BUILTIN_DATASETS[config.data.name].flip_invariant:
        yield "augment.flip", 0.0, "a mirrored image has another meaning"
