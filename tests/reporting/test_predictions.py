"""Figures of predictions show numbers, intervals and names as given; hostile names are inert, empty classes left out."""

import warnings

import numpy as np
import pytest

from sprintnet.evaluation.calibration import calibration
from sprintnet.evaluation.metrics import score_table
from sprintnet.evaluation.multilabel import summarise_labels
from sprintnet.reporting.figures.predictions import (
    class_counts,
    class_label,
    class_scores,
    confusion_matrix,
    coverage,
    reliability,
)

CONFUSION = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
CLASSES = ("cat", "dog", "ghost")


@pytest.fixture(autouse=True)
def _no_warnings() -> None:
    warnings.simplefilter("error")


def test_cells_carry_counts_or_shares_of_the_true_class() -> None:
    counts = confusion_matrix(CONFUSION, CLASSES, normalised=False).axes[0]
    assert sorted(text.get_text() for text in counts.texts) == ["1", "2", "8", "9"]
    shares = confusion_matrix(CONFUSION, CLASSES, normalised=True).axes[0]
    assert sorted(text.get_text() for text in shares.texts) == ["10.0", "20.0", "80.0", "90.0"]
    assert [label.get_text() for label in counts.get_yticklabels()] == ["cat", "dog", "ghost"]


def test_many_classes_are_colour_alone() -> None:
    names = [f"class {number}" for number in range(100)]
    assert not confusion_matrix(np.eye(100), names, normalised=False).axes[0].texts


def test_a_class_without_images_has_no_scores() -> None:
    axes = class_scores(score_table(CONFUSION.diagonal(), CONFUSION.sum(axis=1), CONFUSION.sum(axis=0), CLASSES)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]


def test_scores_that_have_no_interval_stand_beside_those_that_have() -> None:
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], np.uint8)
    table = summarise_labels(np.array([[2.0, -1, -1], [1, 1, -2], [1, 2, -1]]), labels, CLASSES)["classes"]
    axes = class_scores(table).axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["precision", "recall", "F1", "AP", "ROC AUC"]
    points, lines = zip(*((bars.lines[0], bars.has_xerr) for bars in axes.containers), strict=True)
    assert lines == (True, True, True, False, False)
    assert list(points[3].get_xdata()) == [100 * table[name]["average_precision"] for name in ("cat", "dog")]


def test_a_prediction_of_no_label_is_named() -> None:
    assert (class_label(""), class_label("cat|dog")) == ("no label", "cat|dog")


def test_bars_are_the_counts_of_each_split() -> None:
    axes = class_counts({"train": [5, 6, 0], "test": [1, 2, 3]}, CLASSES).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [5, 6, 0, 1, 2, 3]


def test_reliability_is_drawn_from_the_bins() -> None:
    logits, labels = np.array([[2.0, 0, 0], [0, 3.0, 0], [0, 0.1, 0]]), np.array([0, 1, 2])
    figures = calibration(logits, labels)
    (axes,) = reliability({"as trained": figures}, 100).axes
    drawn = [bar.get_height() for bar in axes.patches]
    assert drawn == [entry["accuracy"] for entry in figures["reliability"] if entry["images"]]


def test_coverage_is_drawn_in_percent() -> None:
    (line,) = coverage([{"coverage": 1.0, "accuracy": 0.9}, {"coverage": 0.5, "accuracy": 0.99}]).axes[0].get_lines()
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([100, 50], [90, 99])


@pytest.mark.parametrize("name", ["$\\frac{", "<script>", "two\nlines", "a" * 200, "é\ud800"])
def test_class_names_are_drawn_as_they_are_on_one_short_line(name: str) -> None:
    label = class_label(name)
    assert "\n" not in label
    assert len(label) <= 25
    confusion_matrix(np.eye(2), [name, "other"], normalised=False).savefig("/dev/null", format="svg")
