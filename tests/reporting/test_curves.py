"""Figures of curves draw the data they are given; saved files are what their names say."""

import re
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from sprintnet.reporting.figures.curves import accuracy_over_time, lr_sweeps, schedule_curves, training_curves
from sprintnet.reporting.figures.style import FULL_WIDTH, StyledFigure, _stack, save, styled

ROWS = [{"train_seconds": "30", "val_accuracy": accuracy} for accuracy in ("0.6", "0.8", "0.9")]
LONG = [{"train_seconds": 200.0, "val_accuracy": accuracy} for accuracy in (0.5, 0.7)]
EPOCHS = [
    {"epoch": "1", "train_loss": "2.0", "train_accuracy": "0.3", "val_loss": "1.5", "val_accuracy": "0.4"},
    {"epoch": "2", "train_loss": "1.0", "train_accuracy": "0.6", "val_loss": "1.2", "val_accuracy": "0.5"},
]


def test_each_run_is_a_line_of_cumulative_time() -> None:
    (axes,) = accuracy_over_time({"short": ROWS, "long": LONG}, 0.94).axes
    short, long, target = axes.get_lines()
    assert short.get_xdata() == pytest.approx([0.5, 1, 1.5])
    assert short.get_ydata() == pytest.approx([60, 80, 90])
    assert (long.get_label(), list(target.get_ydata())) == ("long", [94, 94])
    assert axes.get_xlabel() == "training time (minutes)"


def test_a_short_run_is_drawn_in_seconds() -> None:
    assert accuracy_over_time({"short": ROWS}, None).axes[0].get_xlabel() == "training time (seconds)"


def test_times_of_several_runs_are_plain_numbers() -> None:
    def epochs(seconds: float) -> list[dict[str, float]]:
        return [{"train_seconds": seconds, "val_accuracy": accuracy} for accuracy in (0.5, 0.7)]

    labels = set()
    for times in ((0.3, 0.5), (3, 4000)):
        figure = accuracy_over_time({str(seconds): epochs(seconds) for seconds in times}, None)
        figure.draw_without_rendering()
        axis = figure.axes[0].xaxis
        labels |= {label.get_text() for label in (*axis.get_ticklabels(), *axis.get_ticklabels(minor=True))}
    assert {"0.1", "0.4", "1", "10", "100"} <= labels
    assert all(re.fullmatch(r"[0-9.]*", label) for label in labels)


def test_training_and_validation_are_two_lines_of_loss_and_of_accuracy() -> None:
    loss, accuracy = training_curves(EPOCHS, "test").axes
    assert [list(line.get_ydata()) for line in loss.get_lines()] == [[2, 1], [1.5, 1.2]]
    assert [list(line.get_ydata()) for line in accuracy.get_lines()] == [[30, 60], [40, 50]]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training, augmented", "test"]


def test_each_curve_of_the_schedule_has_its_panel() -> None:
    rate, momentum = schedule_curves([0, 1, 2], {"learning rate": [0.1, 0.4, 0.0], "momentum": [0.9, 0.9, 0.9]}).axes
    assert list(rate.get_lines()[0].get_ydata()) == [0.1, 0.4, 0.0]
    assert momentum.get_title(loc="left") == "Momentum"


def test_suggestions_lie_on_the_curve_of_the_first_seed() -> None:
    sweep = {"seed": 3, "rates": [1e-3, 1e-2, 1e-1], "smoothed": [2.0, 1.5, 1.0], "suggestions": {"valley": 1e-2}}
    (axes,) = lr_sweeps([sweep, {**sweep, "seed": 4}]).axes
    first, second, valley = axes.get_lines()
    assert axes.get_xscale() == "log"
    assert (list(first.get_ydata()), second.get_label()) == ([2.0, 1.5, 1.0], "seed 4")
    assert (list(valley.get_xdata()), list(valley.get_ydata())) == ([1e-2], [pytest.approx(1.5)])
    assert valley.get_label() == "valley: 0.01"


def test_a_loss_that_only_rises_and_a_momentum_of_zero_are_drawn() -> None:
    rising = {"seed": 0, "rates": [1e-3, 1e-2], "smoothed": [1.0, 2.0], "suggestions": {}}
    low, high = lr_sweeps([rising]).axes[0].get_ylim()
    assert low < 1.0 < high
    assert schedule_curves([0, 1], {"momentum": [0.0, 0.0]}).axes[0].get_ylim()[1] > 0


def test_a_figure_is_saved_as_png_and_svg_in_both_themes(tmp_path: Path) -> None:
    save(partial(accuracy_over_time, {"short": ROWS}, None), tmp_path / "new" / "plot")
    with Image.open(tmp_path / "new" / "plot.png") as image:
        assert image.format == "PNG"
        assert image.width >= 900
    light, dark = ((tmp_path / "new" / name).read_text() for name in ("plot.svg", "plot-dark.svg"))
    assert "Accuracy over time" in light
    assert "#16181d" in dark
    assert "#16181d" not in light
    save(partial(accuracy_over_time, {"short": ROWS}, None), tmp_path / "again" / "plot")
    for name in ("plot.png", "plot.svg", "plot-dark.png", "plot-dark.svg"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()


def test_a_figure_for_phones_has_its_panels_one_below_the_other(tmp_path: Path) -> None:
    curves = {"learning rate": [0.1, 0.4, 0.0], "momentum": [0.9, 0.9, 0.9]}
    figure = schedule_curves([0, 1, 2], curves)
    _stack(figure)
    figure.draw_without_rendering()
    upper, lower = (axes.get_window_extent() for axes in figure.axes)
    assert upper.y0 > lower.y1
    assert upper.x0 == pytest.approx(lower.x0)
    save(partial(schedule_curves, [0, 1, 2], curves), tmp_path / "plot", for_phones=True)
    (light, dark) = ((tmp_path / name).read_text() for name in ("plot-narrow.svg", "plot-narrow-dark.svg"))
    assert 'width="259.2pt"' in light  # 3.6 inches
    assert "#16181d" in dark


def test_long_labels_that_leave_no_room_on_a_phone_have_no_narrow_figure(tmp_path: Path) -> None:
    @styled
    def draw() -> StyledFigure:
        figure = StyledFigure(figsize=FULL_WIDTH)
        figure.subplots().set_yticks([0], ["a" * 60])
        return figure

    save(draw, tmp_path / "plot", for_phones=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot-dark.png", "plot-dark.svg", "plot.png", "plot.svg"]


def test_the_tta_accuracy_is_a_star_after_the_training() -> None:
    (axes,) = accuracy_over_time({"short": ROWS}, None, {"short": {"accuracy": 0.97, "seconds": 5.0}}).axes
    line, star = axes.lines
    assert star.get_xdata()[0] == line.get_xdata()[-1] + 5
    assert star.get_ydata()[0] == pytest.approx(97)
