"""The schedule as a value: a factor of the peak learning rate at any moment of training, by straight lines between knots."""

import math

import numpy as np

from sprintnet.training.settings import ScheduleSettings


def factor_at(settings: ScheduleSettings, epochs: int, position: float) -> float:
    """Returns the factor of the peak learning rate at a position in epochs (2.5: half-way through the third).

    The last knot stands for the end of training, so a recipe's curve keeps its shape under another number of epochs.
    One-cycle: Smith and Topin 2017, arXiv:1708.07120; as knots: https://github.com/davidcpage/cifar10-fast.
    """
    moment = math.floor(position) if settings.interval == "epoch" else position
    return float(np.interp(moment * settings.knots[-1] / epochs, settings.knots, settings.factors))


def whitening_factor_at(settings: ScheduleSettings, epochs: int, position: float) -> float:
    """Returns the factor for a whitening layer's bias at a position in epochs."""
    return max(0.0, 1 - position / (settings.whitening * epochs))


def resolution_at(settings: ScheduleSettings, epochs: int, position: float) -> float:
    """Returns the side of the training images, as a share of their own, at a position in epochs."""
    begun = sum(start <= position / epochs for start in settings.resolution_milestones)
    return settings.resolution[begun - 1]


def learning_rates(settings: ScheduleSettings, epochs: int, max_lr: float) -> list[float]:
    """Returns the learning rate at the start of each epoch."""
    return [max_lr * factor_at(settings, epochs, epoch) for epoch in range(epochs)]
