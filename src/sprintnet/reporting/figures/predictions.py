"""Figures of the answers to a split: confusion, each class, calibration, coverage, how many images there are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sprintnet.reporting.figures.style import WIDE
from sprintnet.reporting.text.names import UNLABELLED, short
from sprintnet.reporting.text.task_scores import CLASS_SCORES

WRITTEN_CLASSES = 20
"""Up to so many classes, cells carry their number; beyond, colour alone."""


def class_label(name: str, longest: int = 24) -> str:
    """Returns a name as drawn: on one line, not too long, not taken for mathematics."""
    return short(name or UNLABELLED, longest).replace("$", r"\$")


def confusion_matrix(confusion: NDArray[Any], classes: Sequence[str], *, normalised: bool) -> Figure:
    """Returns the confusion matrix (K, K), row the true class, as counts or as shares of the true class in %."""
    counts = np.asarray(confusion, float)
    shown = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalised else counts
    size = min(10.0, 2.2 + 0.5 * len(classes))
    figure = Figure(figsize=(size + 0.6, size))
    axes = figure.subplots()
    paper, ink = rcParams["axes.facecolor"], rcParams["text.color"]
    colours = LinearSegmentedColormap.from_list("share", [paper, "C0"])
    # most of a good matrix lies on its diagonal: a linear scale would show nothing else
    image = axes.imshow(shown, cmap=colours, norm=PowerNorm(0.4, vmin=0, vmax=max(float(shown.max()), 1e-9)))
    if len(classes) <= WRITTEN_CLASSES:
        for (row, column), value in np.ndenumerate(shown):
            text = f"{value:.1f}" if normalised else f"{value:.0f}"
            if value:
                colour = paper if value > 0.35 * shown.max() else ink
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
        names = [class_label(name) for name in classes]
        axes.set_xticks(range(len(classes)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), names)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion, % of the true class" if normalised else "Confusion, images")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def class_scores(table: Mapping[str, Mapping[str, Any]], rankings: Mapping[str, str]) -> Figure:
    """Returns precision, recall and F1 of each class with their 95 % intervals, the weakest class at the bottom.

    `rankings` names scores (key -> name) that are drawn besides, without intervals.
    """
    known = {name: row for name, row in table.items() if row["f1"] is not None}
    names = sorted(known, key=lambda name: known[name]["f1"])
    figure = Figure(figsize=(WIDE[0], 1.2 + 0.32 * max(len(names), 1)))
    axes = figure.subplots()
    for (score, label), offset, marker in zip(
        {**CLASS_SCORES, **rankings}.items(), (-0.2, 0, 0.2, 0, 0), "oooxd", strict=False
    ):
        rows = [(index, known[name]) for index, name in enumerate(names) if known[name][score] is not None]
        values = np.array([100 * row[score] for _, row in rows])
        ends = np.array([row.get(f"{score}_interval", [0, 0]) for _, row in rows], float).reshape(-1, 2) * 100
        axes.errorbar(
            values,
            [index + offset for index, _ in rows],
            xerr=None if score in rankings else np.abs(ends.T - values),
            fmt=marker,
            markersize=3.5,
            linewidth=1.2,
            label=label,
        )
    axes.set_yticks(range(len(names)), [class_label(name) for name in names])
    axes.set(xlabel="%, with 95 % intervals")
    axes.legend(loc="lower left", ncols=5, bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
    return figure


def class_counts(counts: Mapping[str, Sequence[int]], classes: Sequence[str]) -> Figure:
    """Returns how many images each class has, a bar a split (label -> counts)."""
    figure = Figure(figsize=(WIDE[0], 1.2 + 0.3 * len(classes)))
    axes = figure.subplots()
    height = 0.8 / len(counts)
    for number, (split, values) in enumerate(counts.items()):
        places = np.arange(len(classes)) + (number - (len(counts) - 1) / 2) * height
        bars = axes.barh(places, values, height, label=split)
        axes.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=7)
    axes.set_yticks(range(len(classes)), [class_label(name) for name in classes])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="images")
    axes.legend(loc="lower left", ncols=len(counts), bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
    return figure


def reliability(figures: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Returns a reliability diagram a panel (label -> calibration figures): accuracy by confidence, and how many images."""
    figure = Figure(figsize=(WIDE[0], 3.8) if len(figures) > 1 else (3.7, 3.6))
    panels = figure.subplots(1, len(figures), sharey=True, squeeze=False)[0]
    for axes, (label, found) in zip(panels, figures.items(), strict=True):
        bins = found["reliability"]
        images = sum(entry["images"] for entry in bins)
        edges = np.linspace(0, 1, len(bins) + 1)
        held = [(left, entry) for left, entry in zip(edges, bins, strict=False) if entry["images"]]
        lefts = [left for left, _ in held]
        axes.bar(
            lefts, [entry["accuracy"] for _, entry in held], 1 / len(bins), align="edge", edgecolor="white", label="accuracy"
        )
        shares = [entry["images"] / images for _, entry in held]
        axes.plot(
            [left + 0.5 / len(bins) for left in lefts], shares, color="C1", marker="o", markersize=3, label="share of answers"
        )
        axes.plot([0, 1], [0, 1], color="#888888", linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", title=f"{label}: ECE {100 * found['ece']:.2f} %")
    panels[0].legend(loc="upper left")
    return figure


def coverage(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Returns accuracy against the share of images answered, the surest first."""
    figure = Figure(figsize=(3.7, 3.0))
    axes = figure.subplots()
    axes.plot([100 * row["coverage"] for row in rows], [100 * row["accuracy"] for row in rows], marker="o", markersize=3)
    axes.set(xlabel="% of images answered", ylabel="accuracy, %", title="Abstaining below a confidence")
    return figure
