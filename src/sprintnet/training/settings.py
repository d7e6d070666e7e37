"""Settings of the optimizer and its schedule (no torch here: mistakes are found before it loads)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Interval


@dataclass(frozen=True)
class OptimSettings:
    """Stochastic gradient descent."""

    max_lr: Annotated[float, Interval(gt=0, le=10_000)] = 0.45
    """Peak learning rate; the schedule's factors multiply it."""
    head_lr: Annotated[float, Interval(ge=0, le=10_000)] = 0.0
    """Peak learning rate of the last layer; 0: max_lr. In `sprintnet`, which divides its logits by its features, twice the
    width asks for twice the rate."""
    batch_size: Annotated[int, Interval(ge=0, le=1_000_000)] = 0
    """Batch size that max_lr and head_lr are meant for; with another they scale in proportion. 0: they stay as they are."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: Annotated[float, Interval(ge=0, le=1)] = 5e-4
    """Weight decay of every parameter (of a rate other than max_lr: scaled, so that all decay equally fast)."""

    def scaled_to(self, batch_size: int) -> "OptimSettings":
        """Returns the settings with their rates in proportion to the batch size: Goyal et al. 2017, arXiv:1706.02677."""
        ratio = batch_size / self.batch_size if self.batch_size else 1
        return replace(self, max_lr=self.max_lr * ratio, head_lr=self.head_lr * ratio)


@dataclass(frozen=True)
class MuonSettings:
    """Muon, for convolution filters; SGD trains the rest."""

    max_lr: Annotated[float, Interval(ge=0, le=10)] = 0.0
    """Peak learning rate of the filters; 0: no Muon, SGD trains them too."""
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.6
    """Momentum of Muon."""


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate as knots: straight lines between (position, factor of max_lr)."""

    knots: tuple[float, ...] = (0.0, 7.0, 24.0)
    """Positions of the knots, in any unit; the last stands for the end of training, so the curve stretches with epochs."""
    factors: tuple[float, ...] = (0.1, 1.0, 0.0025)
    """The learning rate at each knot, as a factor of optim.max_lr."""
    interval: Literal["epoch", "step"] = "step"
    """When the rate moves: at each epoch's start, or at every step (the training table shows the same either way)."""
    whitening: Annotated[float, Interval(gt=0, le=1)] = 0.375
    """Share of training in which the bias of a whitening layer is trained, at a rate that falls to 0; then it is frozen."""
    resolution: tuple[float, ...] = (1.0,)
    """Side of the training images, as shares of their own side, one after the other: small images first cost less."""
    resolution_milestones: tuple[float, ...] = (0.0,)
    """Share of training after which each resolution begins."""

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
