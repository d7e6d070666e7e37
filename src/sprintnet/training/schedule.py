"""The schedule: piecewise-linear factors of the peak learning rate, and the training resolution, over training."""

import math
from dataclasses import dataclass

import numpy as np

from sprintnet.training.settings import ScheduleSettings


@dataclass(frozen=True)
class Schedule:
    """The schedule stretched to a number of epochs; positions are in epochs (2.5: half-way through the third)."""

    settings: ScheduleSettings
    epochs: int

    def position(self, epoch: int, batch: int, batches: int) -> float:
        """Returns the position of a step: a batch of an epoch of so many."""
        return epoch + batch / batches

    def lr_factor(self, position: float) -> float:
        """Returns the factor of the peak learning rates.

        The last knot is the end of training, so a curve keeps its shape with another number of epochs. One-cycle: Smith and
        Topin 2017, arXiv:1708.07120; as knots: https://github.com/davidcpage/cifar10-fast.
        """
        moment = math.floor(position) if self.settings.interval == "epoch" else position
        return float(np.interp(moment * self.settings.knots[-1] / self.epochs, self.settings.knots, self.settings.factors))

    def whitening_factor(self, position: float) -> float:
        """Returns the factor of the whitening bias's learning rate."""
        return max(0.0, 1 - position / (self.settings.whitening * self.epochs))

    def resolution(self, position: float) -> float:
        """Returns the side of the training images as a fraction of their own."""
        passed = sum(start <= position / self.epochs for start in self.settings.resolution_milestones)
        return self.settings.resolution[passed - 1]
