"""The forecast of a training: its time in closed form, from steps of a known cost on a clock that the test moves."""

import pytest

from sprintnet.training import forecast
from sprintnet.training.forecast import EVALUATION_COST, MEASURED_SECONDS, Forecast
from sprintnet.training.schedule import Schedule
from sprintnet.training.settings import ScheduleSettings


class Clock:
    """A clock that stands still between calls of `advance`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(forecast, "time", clock)
    return clock


def said_after(clock: Clock, of: Forecast, first: float, each: float) -> tuple[int, float]:
    """Returns after how many steps the forecast is made, and the seconds, where the first takes so long, and each other one."""
    for batch in range(1, of.batches + 1):
        clock.now += first if batch == 1 else each
        if seconds := of.seconds(0, batch):
            return batch, seconds
    raise AssertionError("no forecast")


def test_equal_steps(clock: Clock) -> None:
    of = Forecast(Schedule(ScheduleSettings(), 4), epochs=4, batches=10, evaluated=6)
    batch, seconds = said_after(clock, of, first=60, each=1.5)  # the first one loads and allocates
    assert batch == 1 + MEASURED_SECONDS / 1.5
    assert seconds == pytest.approx(1.5 * (40 - batch + 4 * 6 * EVALUATION_COST))
    assert of.seconds(0, batch + 1) == 0  # said once


def test_later_epochs_of_larger_images_take_longer(clock: Clock) -> None:
    settings = ScheduleSettings(resolution=(0.5, 1.0), resolution_milestones=(0.0, 0.5))
    of = Forecast(Schedule(settings, 4), epochs=4, batches=10, evaluated=0)
    batch, seconds = said_after(clock, of, first=1, each=1)
    assert seconds == pytest.approx((20 - batch) + 20 / 0.5**2)


def test_a_training_of_one_second_says_nothing(clock: Clock) -> None:
    of = Forecast(Schedule(ScheduleSettings(), 1), epochs=1, batches=10, evaluated=1)
    with pytest.raises(AssertionError, match="no forecast"):
        said_after(clock, of, first=1, each=0.1)


def test_of_epochs_too_short_to_measure_several_are_measured(clock: Clock) -> None:
    of = Forecast(Schedule(ScheduleSettings(), 40), epochs=40, batches=3, evaluated=3)
    for epoch in range(40):
        for batch in range(1, 4):
            clock.now += 60 if (epoch, batch) == (0, 1) else 0.5
            if seconds := of.seconds(epoch, batch):
                left = 40 * 3 - (epoch * 3 + batch)
                assert epoch == 1
                assert seconds == pytest.approx(0.5 * (left + (40 - epoch) * 3 * EVALUATION_COST))
                return
        clock.now += 0.5 * 3 * EVALUATION_COST
    raise AssertionError("no forecast")
