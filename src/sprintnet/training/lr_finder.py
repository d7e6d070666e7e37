"""The learning-rate finder: a sweep of rising learning rates on a copy of the network, and what its curve suggests.

Smith 2015, arXiv:1506.01186; the smoothed curve as in https://sgugger.github.io/how-do-you-find-a-good-learning-rate.html;
`valley` and `slide` give fastai's numbers (2.8.12, https://docs.fast.ai/callback.schedule.html).
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from sprintnet.data.loader import Batch
from sprintnet.errors import SettingsError
from sprintnet.training.checkpoint import random_state, set_random_state
from sprintnet.training.optim import set_learning_rates
from sprintnet.training.step import Step

BETA = 0.98
DIVERGED = 4.0
"""The sweep ends once the smoothed loss exceeds its minimum by this factor."""
MIN_RATES = 25
"""Learning rates that a curve needs for suggestions."""
SKIP_FRACTION = 10
"""The first 1/SKIP_FRACTION of the curve is ignored: its running mean has too few losses."""
SLOPE_FRACTION = 30
"""A slope is taken over 1/SLOPE_FRACTION of the curve to each side: between neighbours it is noise, and at the lowest loss,
just before the loss explodes, looks as steep as anywhere."""
TAIL = 5
"""Learning rates at the end that valley and slide ignore."""
MAX_EXTENSION = 2
"""A sweep whose loss still falls goes on, up to this many times the steps that were asked for."""
Losses = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Sweep:
    """The loss before the step at each learning rate, raw and smoothed; learning rates as the training table shows them."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    still_falls: bool = False
    """Whether the loss had not risen at the end."""

    def suggestions(self) -> dict[str, float]:
        """Returns `steepest` (slope over the logarithm), `minimum`, and fastai's `valley` and `slide`.

        A slope is that between points a fifteenth of the curve apart. `minimum` is a tenth of the learning rate of the lowest
        loss. The first tenth of the curve is ignored, as in fastai; by
        steepest and minimum what follows the lowest loss too, by the others the last TAIL learning rates. Raises SettingsError
        for too few learning rates, a fall within noise, or none that ends.
        """
        skipped = len(self.rates) // SKIP_FRACTION
        if len(self.rates) < MIN_RATES:
            raise SettingsError(
                f"the loss diverged after {len(self.rates)} learning rates, from {self.rates[0]:g}; "
                "start the sweep at a lower one"
            )
        if self.still_falls:
            raise SettingsError(
                f"the loss still falls at the last learning rate, {self.rates[-1]:.3g}: the curve suggests none; "
                "sweep to a higher one (lr-find --highest)"
            )
        smoothed, minimum = np.array(self.smoothed), int(np.argmin(self.smoothed))
        fall, noise = smoothed[skipped] - smoothed[minimum], float(np.median(np.abs(np.diff(self.losses))))
        if minimum <= skipped + 1 or fall <= noise:
            raise SettingsError(
                f"the loss falls by {max(fall, 0):.3g}, which is within its noise ({noise:.3g}): the curve suggests no "
                "learning rate; sweep to a higher one, in more steps, or with larger batches"
            )
        slope = slopes(smoothed[skipped:], np.log(self.rates[skipped:]))[: minimum + 1 - skipped]
        middle, rates = smoothed[skipped:-TAIL], self.rates[skipped:-TAIL]
        return {
            "steepest": self.rates[skipped + int(slope.argmin())],
            "minimum": self.rates[minimum] / 10,
            "valley": rates[valley(middle)],
            "slide": rates[slide(middle)],
        }

    def has_risen(self) -> bool:
        """Returns whether the lowest loss lies before the last tenth of the curve: the sweep has gone far enough."""
        return int(np.argmin(self.smoothed)) < len(self.smoothed) - max(TAIL, len(self.smoothed) // SKIP_FRACTION)


def slopes(losses: Losses, places: Losses) -> Losses:
    """Returns the slope at each point, between those 1/SLOPE_FRACTION of the curve to its left and right, or at the ends."""
    width = max(1, len(losses) // SLOPE_FRACTION)
    left = np.maximum(np.arange(len(losses)) - width, 0)
    right = np.minimum(np.arange(len(losses)) + width, len(losses) - 1)
    return np.asarray((losses[right] - losses[left]) / (places[right] - places[left]))


def valley(losses: Losses) -> int:
    """Returns the index half-way along the longest decreasing subsequence, counted back from its end, as fastai's does."""
    length = np.ones(len(losses), np.int64)
    for later in range(1, len(losses)):
        length[later] += length[:later].max(initial=0, where=losses[:later] > losses[later])
    end = int(length.argmax())
    start, third = (end - int(length[end]), length[end] / 3) if length[end] > 1 else (0, 0)
    return start + int(third) + int(third / 2)


def slide(losses: Losses, width: int = 15, threshold: float = 0.005) -> int:
    """Returns the index where, from the right, slopes `width` steps apart differ by the threshold or less, as fastai's does."""
    slope = np.gradient(losses)
    right = len(losses) - 1
    left = found = right - width
    while left >= 0 and abs(slope[right] - slope[left]) > threshold:
        found = left
        right, left = right - 1, left - 1
    return found


def sweep(step: Step, batches: Iterable[Batch], peak_lr: float, lowest: float, highest: float, rates: int) -> Sweep:
    """Returns the losses while all learning rates rise geometrically from `lowest` to `highest` in `rates` steps, a batch each.

    Every parameter group keeps its proportion, as in training. Works on a copy: model, optimizer and PyTorch's generators are
    left unchanged. Ends early where the loss is no longer finite or exceeds four times its minimum; goes on at the same pace
    while the loss still falls at the end, as far as there are batches.
    """
    trial, state = copy.deepcopy(step), random_state(step.runtime.device)
    trial.model.train()
    found = Sweep([], [], [])
    average = 0.0
    try:
        for number, (images, labels) in enumerate(batches, 1):
            if number > rates and found.has_risen():
                break
            rate = lowest * (highest / lowest) ** ((number - 1) / (rates - 1))
            set_learning_rates(trial.optimizer, rate / peak_lr, rate / peak_lr)
            mean_loss, logits = trial.forward(images, labels)
            loss = float(mean_loss.detach())
            if not math.isfinite(loss):
                break
            average = BETA * average + (1 - BETA) * loss
            smoothed = average / (1 - BETA**number)  # bias correction
            for values, value in ((found.rates, rate), (found.losses, loss), (found.smoothed, smoothed)):
                values.append(value)
            if smoothed > DIVERGED * min(found.smoothed):
                break
            trial.backward(mean_loss)
            trial.update(mean_loss.detach(), step.task.correct(logits.detach(), labels).sum(), len(labels))
        else:
            found = replace(found, still_falls=not found.has_risen())
    finally:
        set_random_state(state, step.runtime.device)
    return found
