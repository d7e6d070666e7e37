"""The learning-rate finder: a sweep of rising learning rates on a copy of the network, and what its curve suggests.

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
"""The sweep ends once the smoothed loss exceeds its minimum by this factor."""
MIN_RATES = 10
"""Learning rates that a curve needs for suggestions."""
SKIP_FRACTION = 10
"""The first 1/SKIP_FRACTION of the curve is ignored: its running mean has too few losses."""


@dataclass(frozen=True)
class Sweep:
    """The loss before the step at each learning rate, raw and smoothed; learning rates as the training table shows them."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]

    def suggestions(self) -> dict[str, float]:
        """Returns `steepest` (slope over the logarithm), `minimum` (a tenth of it), `valley` (middle of the longest fall).

        The valley is after fastai (https://docs.fast.ai/callback.schedule.html), but not the same. The first tenth of the curve
        and what follows its minimum are ignored. Raises SettingsError for too few learning rates, or a fall within noise.
        """
        if len(self.rates) < MIN_RATES:
            raise SettingsError(
                f"the loss diverged after {len(self.rates)} learning rates, from {self.rates[0]:g}; "
                "start the sweep at a lower one"
            )
        skipped = len(self.rates) // SKIP_FRACTION
        smoothed, minimum = np.array(self.smoothed), int(np.argmin(self.smoothed))
        fall, noise = smoothed[skipped] - smoothed[minimum], float(np.median(np.abs(np.diff(self.losses))))
        if minimum <= skipped + 1 or fall <= noise:
            raise SettingsError(
                f"the loss falls by {max(fall, 0):.3g}, which is within its noise ({noise:.3g}): the curve suggests no "
                "learning rate; sweep to a higher one, in more steps, or with larger batches"
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
    """Returns the losses while all learning rates rise geometrically from `lowest` to `highest`, a batch each.

    Every parameter group keeps its proportion, as in training. Works on a copy: model, optimizer and PyTorch's generators are
    left unchanged. Ends early where the loss is no longer finite or exceeds four times its minimum.
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
            smoothed = average / (1 - BETA**number)  # bias correction
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
