"""Settings that a recipe leaves to the data: its values are meant for CIFAR-10, and fitted to other images here."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sprintnet.config import Config
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.models.settings import ModelSettings
from sprintnet.runs.folder import dotted

REFERENCE_SIDE = 32
"""Pixels that recipes are meant for."""
SMALL_DATASET = 25_000
"""Training images below which training is fitted to their number; CIFAR-10 has more with any part held out."""
MANY_CLASSES = 20
"""Classes above which a network is wider."""
WIDTH_FACTOR = 1.5
MAX_PADDING = 32
"""Pixels that augment.crop_padding may have."""


@dataclass(frozen=True)
class DatasetFacts:
    """What settings are fitted to: the number of training images, of classes, pixels of an image's shorter side."""

    images: int
    classes: int
    side: int
    start: ModelSettings | None = None
    """The network that training starts from, if `init` names one."""


def resolve(config: Config, facts: DatasetFacts) -> tuple[Config, tuple[str, ...]]:
    """Returns the settings fitted to the data, where `config.auto` lists them, and a line for each that says what and why.

    Fitting again changes nothing. A batch never counts more images than there are, so that rates in proportion to it fit.
    """
    given = dotted(asdict(config))
    changes: dict[str, Any] = {}
    lines = []
    for key, value, reason in _proposals(config, facts):
        if key in config.auto and value != given[key]:
            changes[key] = value
            lines.append(f"{key}={value:g} instead of {given[key]:g}: {reason}")
    if "augment.flip" in config.auto and config.augment.flip and config.data.name not in BUILTIN_DATASETS:
        lines.append(f"augment.flip={config.augment.flip:g} stays: name augment.flip=0 if mirror images mean something else")
    if facts.images < changes.get("batch_size", config.batch_size):
        changes["batch_size"] = facts.images
        lines.append(f"batch_size={facts.images} instead of {config.batch_size}: there are no more training images")
    return config.changed({**changes, "auto": ()}), tuple(lines)


def _proposals(config: Config, facts: DatasetFacts) -> Iterator[tuple[str, Any, str]]:
    """Yields (setting, value, reason) for all that may be fitted."""
    if facts.images < SMALL_DATASET:
        # a quarter of the images: half the batch, twice the epochs; as many steps, in half the time
        share = math.sqrt(facts.images / SMALL_DATASET)
        few = f"{facts.images:,} training images are fewer than {SMALL_DATASET:,}"
        yield "batch_size", min(facts.images, round(config.batch_size * share)), f"{few}, and would be few steps"
        yield "epochs", round(config.epochs / share), few
    width = config.model.width
    if facts.start:
        as_there = f"as in the network that init_from={config.init_from} names"
        width = facts.start.width
        yield "model.width", width, as_there
        yield "model.stride", facts.start.stride, as_there
    else:
        if facts.classes > MANY_CLASSES:
            width = round(WIDTH_FACTOR * width)
            yield "model.width", width, f"{facts.classes} classes are more than {MANY_CLASSES}"
        if config.model.name == "sprintnet":
            stride = max(1, math.floor(facts.side / REFERENCE_SIDE + 0.5))
            yield "model.stride", stride, f"{facts.side} pixels then cost about what {REFERENCE_SIDE} do"
    if "model.width" in config.auto:
        yield "optim.head_lr", config.optim.head_lr * width / config.model.width, "in proportion to the width"
    for name, most in (("crop_padding", MAX_PADDING), ("cutout", facts.side)):
        pixels = min(most, round(getattr(config.augment, name) * facts.side / REFERENCE_SIDE))
        yield f"augment.{name}", pixels, f"in proportion to the {facts.side} pixels of a side"
    if config.data.name in BUILTIN_DATASETS and not BUILTIN_DATASETS[config.data.name].flip_invariant:
        yield "augment.flip", 0.0, "the mirror image of one of its pictures is none"
