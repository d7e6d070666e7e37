"""Figures: what is drawn is what was given, and files are what their names say."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from sprintnet.reporting.plots import accuracy_over_time

ROWS = [{"train_seconds": "30", "val_accuracy": accuracy} for accuracy in ("0.6", "0.8", "0.9")]
LONG = [{"train_seconds": 200.0, "val_accuracy": accuracy} for accuracy in (0.5, 0.7)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *arguments: object, **options: object) -> None:
        figures.append(self)
        save(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_each_run_is_a_line_of_cumulative_time(tmp_path: Path, drawn: list[Figure]) -> None:
    accuracy_over_time({"short": ROWS, "long": LONG}, 0.94, tmp_path / "new" / "plot.png")
    (axes,) = drawn[0].axes
    short, long, target = axes.get_lines()
    assert short.get_xdata() == pytest.approx([0.5, 1, 1.5])
    assert short.get_ydata() == pytest.approx([60, 80, 90])
    assert (long.get_label(), list(target.get_ydata())) == ("long", [94, 94])
    assert axes.get_xlabel() == "minutes of training"
    with Image.open(tmp_path / "new" / "plot.png") as image:
        assert image.format == "PNG"
        assert image.width >= 900


def test_a_short_run_is_drawn_in_seconds_and_svg_keeps_its_text(tmp_path: Path, drawn: list[Figure]) -> None:
    accuracy_over_time({"short": ROWS}, None, tmp_path / "plot.svg")
    assert drawn[0].axes[0].get_xlabel() == "seconds of training"
    assert "Accuracy over time" in (tmp_path / "plot.svg").read_text()
