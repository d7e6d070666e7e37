"""The learning-rate finder: a sweep of rising rates on a copy of the network, and the rates that its curve suggests.

Smith 2015, arXiv:1506.01186; the smoothed curve as in https://sgugger.github.io/how-do-you-find-a-good-learning-rate.html.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sprintnet.data.loader import Batch
from sprintnet.errors import SettingsError
from sprintnet.training.checkpoint import random_state, set_random_state
from sprintnet.training.optim import set_learning_rates
from sprintnet.training.step import Step

BETA = 0.98
DIVERGED = 4.0
"""The sweep ends once the smoothed loss is this many times its minimum."""
MIN_RATES = 10
"""Rates without which a curve suggests nothing."""
SKIP_FRACTION = 10
"""One rate in so many, from the lowest on, is left out of suggestions: the running mean has too few losses there."""


@dataclass(frozen=True)
class Sweep:
    """The loss before the step at each rate, as it was and smoothed; a rate is what the training table shows as its peak."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]

    def suggestions(self) -> dict[str, float]:
        """Returns rates by name: `steepest` (slope of loss over log rate), `minimum` / 10, `valley` (mid of the longest fall).

        The valley is fastai's (https://docs.fast.ai/callback.schedule.html). None looks at the first tenth of the curve, nor
        beyond its minimum. Raises SettingsError for a curve of fewer than ten rates, or that falls by no more than its noise.
        """
        if len(self.rates) < MIN_RATES:
            raise SettingsError(
                f"the loss diverged after {len(self.rates)} rates, from {self.rates[0]:g} on; begin the sweep at a lower rate"
            )
        skipped = len(self.rates) // SKIP_FRACTION
        smoothed, minimum = np.array(self.smoothed), int(np.argmin(self.smoothed))
        fall, noise = smoothed[skipped] - smoothed[minimum], float(np.median(np.abs(np.diff(self.losses))))
        if minimum <= skipped + 1 or fall <= noise:
            raise SettingsError(
                f"the loss falls by {max(fall, 0):.3g}, no more than it varies from batch to batch ({noise:.3g}): its curve "
                "suggests no rate; sweep to a higher rate, in more steps, or with larger batches"
            )
        falling = smoothed[skipped : minimum + 1]
        slope = np.gradient(falling, np.log(self.rates[skipped : minimum + 1]))
        start, end = _longest_fall(falling)
        return {
            "steepest": self.rates[skipped + int(slope.argmin())],
            "minimum": self.rates[minimum] / 10,
            "valley": self.rates[skipped + (start + end) // 2],
        }


def sweep(step: Step, batches: Iterable[Batch], peak_lr: float, lowest: float, highest: float, rates: int) -> Sweep:
    """Returns the losses while the rates of all parameters rise geometrically from `lowest` to `highest`, a batch each.

    Every group keeps its share of the peak rate, as in training. Works on a copy: the model, the optimizer and PyTorch's
    generators are as before afterwards. Ends early where the loss is no longer finite or has grown to four times its minimum.
    """
    trial, state = copy.deepcopy(step), random_state(step.runtime.device)
    trial.model.train()
    found = Sweep([], [], [])
    average = 0.0
    try:
        for number, (rate, (images, labels)) in enumerate(
            zip(np.geomspace(lowest, highest, rates).tolist(), batches, strict=False), 1
        ):
            set_learning_rates(trial.optimizer, rate / peak_lr, rate / peak_lr)
            mean_loss, logits = trial.forward(images, labels)
            loss = float(mean_loss.detach())
            if not math.isfinite(loss):
                break
            average = BETA * average + (1 - BETA) * loss
            smoothed = average / (1 - BETA**number)  # without the zero that the average began with
            for values, value in ((found.rates, rate), (found.losses, loss), (found.smoothed, smoothed)):
                values.append(value)
            if smoothed > DIVERGED * min(found.smoothed):
                break
            trial.backward(mean_loss)
            trial.update(mean_loss.detach(), step.task.correct(logits.detach(), labels).sum(), len(labels))
    finally:
        set_random_state(state, step.runtime.device)
    return found


def _longest_fall(losses: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[int, int]:
    """Returns the first and last index of the longest decreasing subsequence."""
    length, first = [1] * len(losses), list(range(len(losses)))
    for later in range(len(losses)):
        for earlier in range(later):
            if losses[earlier] > losses[later] and length[earlier] >= length[later]:
                length[later], first[later] = length[earlier] + 1, first[earlier]
    end = int(np.argmax(length))
    return first[end], end
