"""Settings of the optimizers and the schedule (no torch: mistakes are found before it loads)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Interval


@dataclass(frozen=True)
class OptimSettings:
    """SGD."""

    max_lr: Annotated[float, Interval(gt=0, le=10_000)] = 0.45
    """Peak learning rate; the schedule's factors multiply it."""
    head_lr: Annotated[float, Interval(ge=0, le=10_000)] = 0.0
    """Peak learning rate of the last layer; 0: max_lr. `sprintnet` divides its logits by the number of features, so twice the
    width needs twice the learning rate."""
    layer_decay: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each part of the network to the one before it: below 1, a pretrained network changes
    less towards its first layers."""
    batch_size: Annotated[int, Interval(ge=0, le=1_000_000)] = 0
    """Batch size that max_lr and head_lr are made for; they scale in proportion to another. 0: no scaling."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Nesterov momentum."""
    weight_decay: Annotated[float, Interval(ge=0, le=1)] = 5e-4
    """Weight decay of every parameter (scaled where the learning rate is not max_lr, so that all decay equally fast)."""

    def scaled_to(self, batch_size: int) -> "OptimSettings":
        """Returns the settings with learning rates in proportion to the batch size: Goyal et al. 2017, arXiv:1706.02677."""
        ratio = batch_size / self.batch_size if self.batch_size else 1
        return replace(self, max_lr=self.max_lr * ratio, head_lr=self.head_lr * ratio)


@dataclass(frozen=True)
class HeadSettings:
    """The last layer of a pretrained network, fitted before the epochs, in which the whole network is trained."""

    fit: bool = False
    """Fit the last layer to embeddings of the training images: logistic regression, its penalty chosen by cross-validation.
    With epochs=0 nothing else is trained; with more, batch norm keeps the statistics that it has."""


@dataclass(frozen=True)
class ScalerSettings:
    """The scale of the loss in fp16, which keeps small gradients from becoming zero; with other precisions there is none."""

    init_scale: Annotated[float, Interval(ge=1, le=2.0**32)] = 65536.0
    """The first scale."""
    growth_factor: Annotated[float, Interval(gt=1, le=1024)] = 2.0
    """Factor of the scale after `growth_interval` steps without an overflow."""
    backoff_factor: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Factor of the scale after a step whose gradients overflow, which is skipped."""
    growth_interval: Annotated[int, Interval(ge=1, le=1_000_000)] = 2000
    """Steps without an overflow after which the scale grows."""


@dataclass(frozen=True)
class MuonSettings:
    """Muon, for convolution filters; SGD trains the rest."""

    max_lr: Annotated[float, Interval(ge=0, le=10)] = 0.0
    """Peak learning rate of the filters; 0: no Muon, SGD trains all parameters."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.6
    """Momentum of Muon."""


@dataclass(frozen=True)
class ScheduleSettings:
    """Piecewise-linear learning rate, and the resolution, over training."""

    knots: tuple[float, ...] = (0.0, 7.0, 24.0)
    """Positions of the knots, in any unit; the last is the end of training, so the curve stretches with epochs."""
    factors: tuple[float, ...] = (0.1, 1.0, 0.0025)
    """The learning rate at each knot, as a factor of optim.max_lr."""
    interval: Literal["epoch", "step"] = "step"
    """When the learning rate changes: at the start of each epoch, or at every step."""
    whitening: Annotated[float, Interval(gt=0, le=1)] = 0.375
    """Fraction of training in which the whitening bias is trained, with a learning rate that falls to 0."""
    resolution: tuple[float, ...] = (1.0,)
    """Sides of the training images as fractions of their own, one after the other: small images first cost less."""
    resolution_milestones: tuple[float, ...] = (0.0,)
    """Fraction of training at which each resolution begins."""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Yields (field, rule) for each rule between fields that is broken."""
        if len(self.knots) < 2 or self.knots[0] != 0 or any(a >= b for a, b in zip(self.knots, self.knots[1:], strict=False)):
            yield "knots", "must be at least two numbers that start at 0 and rise, such as 0,7,24"
        if len(self.factors) != len(self.knots):
            yield "factors", f"must have one number for each of the {len(self.knots)} schedule.knots"
        if any(factor < 0 for factor in self.factors):
            yield "factors", "must not be negative"
        starts = self.resolution_milestones
        if not starts or starts[0] != 0 or any(a >= b for a, b in zip(starts, (*starts[1:], 1), strict=True)):
            yield "resolution_milestones", "must start at 0, rise and stay below 1, such as 0,0.4,0.75"
        if len(self.resolution) != len(starts):
            yield "resolution", f"must have one number for each of the {len(starts)} in schedule.resolution_milestones"
        if any(not 0 < share <= 1 for share in self.resolution):
            yield "resolution", "must be above 0 and at most 1, the images' own side"


@dataclass(frozen=True)
class DistillSettings:
    """Training towards the probabilities of a trained model, the teacher."""

    teacher: str = ""
    """Run (folder or name), export folder or weights file of the teacher, such as an ensemble, of the same data; empty: none.
    """
    weight: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Share of the teacher's probabilities in what is trained towards; the rest is the label."""
    temperature: Annotated[float, Interval(gt=0, le=100)] = 1.0
    """What the logits of the teacher's calibrated probabilities are divided by: above 1, they are less certain."""
