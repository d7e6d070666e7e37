"""The schedule against the article's LR column, then against its own definition."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprintnet.config import load_config
from sprintnet.training.schedule import Schedule
from sprintnet.training.settings import ScheduleSettings

ARTICLE = (Path(__file__).parents[1] / "reference" / "article_training.txt").read_text().splitlines()


def test_the_articles_lr_column_to_six_decimals() -> None:
    config = load_config("davidnet")
    rates = [config.optim.max_lr * Schedule(config.schedule, 24).lr_factor(epoch) for epoch in range(config.epochs)]
    assert [f"{rate:.6f}" for rate in rates] == [line.split("|")[2].strip() for line in ARTICLE]
    assert len(rates) == 24


def test_the_last_knot_is_a_fortieth_of_the_first_rate() -> None:
    config = load_config("davidnet")
    assert config.optim.max_lr * Schedule(config.schedule, 24).lr_factor(24) == pytest.approx(0.045 / 40)


def test_a_rate_a_step_moves_within_the_epoch_and_a_rate_an_epoch_does_not() -> None:
    by_epoch, by_step = ScheduleSettings(interval="epoch"), ScheduleSettings(interval="step")
    assert Schedule(by_epoch, 24).lr_factor(3.5) == Schedule(by_epoch, 24).lr_factor(3)
    assert Schedule(by_step, 24).lr_factor(3.5) == pytest.approx(
        (Schedule(by_step, 24).lr_factor(3) + Schedule(by_step, 24).lr_factor(4)) / 2
    )


@given(st.integers(1, 200), st.floats(0, 1))
def test_the_curve_keeps_its_shape_under_another_number_of_epochs(epochs: int, share: float) -> None:
    schedule = ScheduleSettings(interval="step")
    assert Schedule(schedule, epochs).lr_factor(share * epochs) == pytest.approx(Schedule(schedule, 24).lr_factor(share * 24))


@given(st.lists(st.floats(0, 10), min_size=2, max_size=6))
def test_knots_are_met_exactly(factors: list[float]) -> None:
    knots = tuple(float(index) for index in range(len(factors)))
    schedule = ScheduleSettings(knots=knots, factors=tuple(factors), interval="step")
    assert [Schedule(schedule, len(knots) - 1).lr_factor(knot) for knot in knots] == pytest.approx(factors)


def test_a_whitening_bias_is_trained_for_its_share_at_a_falling_rate() -> None:
    schedule = ScheduleSettings(whitening=0.375)
    assert [Schedule(schedule, 8).whitening_factor(epoch) for epoch in (0, 1.5, 3, 5)] == [1, 0.5, 0, 0]


def test_each_resolution_begins_at_its_share_of_training_and_the_last_stays() -> None:
    schedule = ScheduleSettings(resolution=(0.5, 0.75, 1), resolution_milestones=(0, 0.4, 0.75))
    assert [Schedule(schedule, 8).resolution(position) for position in (0, 3.1, 3.2, 5.9, 6, 8)] == [0.5, 0.5, 0.75, 0.75, 1, 1]
    assert Schedule(ScheduleSettings(), 8).resolution(3) == 1
