"""Settings that a recipe leaves to the data: its values are meant for CIFAR-10, and fitted to other images here."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sprintnet.config import Config
from sprintnet.data.builtin.registry import NAMED
from sprintnet.models.settings import ModelSettings
from sprintnet.runs.folder import dotted

SIDE = 32
"""Pixels that recipes are meant for."""
FEW = 25_000
"""Training images below which training is fitted to their number; CIFAR-10 has more with any part held out."""
MANY = 20
"""Classes above which a network is wider."""
WIDER = 1.5
MOST_PADDING = 32
"""Pixels that augment.crop_padding may have."""


@dataclass(frozen=True)
class Facts:
    """What settings are fitted to: the number of training images, of classes, pixels of an image's shorter side."""

    images: int
    classes: int
    side: int
    start: ModelSettings | None = None
    """The network that training starts from, if `init` names one."""


def adapted(config: Config, facts: Facts) -> tuple[Config, tuple[str, ...]]:
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
    if "augment.flip" in config.auto and config.augment.flip and config.data.name not in NAMED:
        lines.append(f"augment.flip={config.augment.flip:g} stays: name augment.flip=0 if mirror images mean something else")
    if facts.images < changes.get("batch_size", config.batch_size):
        changes["batch_size"] = facts.images
        lines.append(f"batch_size={facts.images} instead of {config.batch_size}: there are no more training images")
    return config.changed({**changes, "auto": ()}), tuple(lines)


def _proposals(config: Config, facts: Facts) -> Iterator[tuple[str, Any, str]]:
    """Yields (setting, value, reason) for all that may be fitted."""
    if facts.images < FEW:
        # a quarter of the images: half the batch, twice the epochs; as many steps, in half the time
        share = math.sqrt(facts.images / FEW)
        few = f"{facts.images:,} training images are fewer than {FEW:,}"
        yield "batch_size", min(facts.images, round(config.batch_size * share)), f"{few}, and would be few steps"
        yield "epochs", round(config.epochs / share), few
    width = config.model.width
    if facts.start:
        as_there = f"as in the network that init={config.init} names"
        width = facts.start.width
        yield "model.width", width, as_there
        yield "model.stride", facts.start.stride, as_there
    else:
        if facts.classes > MANY:
            width = round(WIDER * width)
            yield "model.width", width, f"{facts.classes} classes are more than {MANY}"
        if config.model.name == "sprintnet":
            stride = max(1, math.floor(facts.side / SIDE + 0.5))
            yield "model.stride", stride, f"{facts.side} pixels then cost about what {SIDE} do"
    if "model.width" in config.auto:
        yield "optim.head_lr", config.optim.head_lr * width / config.model.width, "in proportion to the width"
    for name, most in (("crop_padding", MOST_PADDING), ("cutout", facts.side)):
        pixels = min(most, round(getattr(config.augment, name) * facts.side / SIDE))
        yield f"augment.{name}", pixels, f"in proportion to the {facts.side} pixels of a side"
    if config.data.name in NAMED and not NAMED[config.data.name].mirrored:
        yield "augment.flip", 0.0, "the mirror image of one of its pictures is none"
