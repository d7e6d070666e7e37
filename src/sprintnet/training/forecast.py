"""How long a training will take, from the speed of its first steps."""

import time

from sprintnet.training.schedule import Schedule

MEASURED_SECONDS = 3.0
EVALUATION_COST = 1 / 3  # of as many images as a batch has, in training steps: a forward pass without a backward one


class Forecast:
    """The seconds of the epochs that are left, once, when steps have been measured for `MEASURED_SECONDS`.

    The first step, which loads libraries and allocates memory, does not count. A step costs as much as its images have pixels.
    """

    def __init__(self, schedule: Schedule, epochs: int, batches: int, evaluated: float):
        self.schedule, self.epochs, self.batches, self.evaluated = schedule, epochs, batches, evaluated
        self._started, self._cost, self._is_done = 0.0, 0.0, False

    def seconds(self, epoch: int, batch: int) -> float:
        """Returns the seconds that are left after so many steps of an epoch (from 0), or 0: not known yet, or said before."""
        if self._is_done:
            return 0.0
        if not self._started:
            self._started = time.monotonic()
            return 0.0
        self._cost += self._step_cost(epoch, batch - 1) + self.evaluated * EVALUATION_COST * (batch == 1)
        elapsed = time.monotonic() - self._started
        self._is_done = elapsed >= MEASURED_SECONDS
        return elapsed / self._cost * self._cost_left(epoch, batch) if self._is_done else 0.0

    def _step_cost(self, epoch: int, batch: float) -> float:
        return self.schedule.resolution(epoch + batch / self.batches) ** 2

    def _cost_left(self, epoch: int, batch: int) -> float:
        this = (self.batches - batch) * self._step_cost(epoch, (batch + self.batches) / 2)
        others = self.batches * sum(self._step_cost(later, self.batches / 2) for later in range(epoch + 1, self.epochs))
        return this + others + (self.epochs - epoch) * self.evaluated * EVALUATION_COST
