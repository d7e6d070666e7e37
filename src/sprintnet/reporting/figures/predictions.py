"""Figures of predictions: confusion matrix, scores by class, calibration, coverage; and of class counts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from numpy.typing import NDArray

from sprintnet.reporting.figures.style import FULL_WIDTH, StyledFigure, styled
from sprintnet.reporting.text.names import UNLABELLED, short
from sprintnet.reporting.text.task_scores import CLASS_SCORES, FEW_IMAGES

COLOURS = 7  # of the cycle
MAX_NAMED_CURVES = 10  # curves of more classes have one colour and no names
MAX_ANNOTATED_CLASSES = 20  # cells of a confusion matrix of more classes have no numbers


def class_label(name: str, longest: int = 24) -> str:
    """Returns a name as drawn: on one line, cut to `longest` characters, not taken for mathematics."""
    return short(name or UNLABELLED, longest).replace("$", r"\$")


@styled
def confusion_matrix(confusion: NDArray[Any], classes: Sequence[str], *, normalised: bool) -> StyledFigure:
    """Returns the confusion matrix (K, K), row the true class: in images, or in % of the true class."""
    counts = np.asarray(confusion, float)
    shown = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalised else counts
    size = min(10.0, 2.2 + 0.5 * len(classes))
    figure = StyledFigure(figsize=(size + 0.6, size))
    axes = figure.subplots()
    unit = "% of the true class" if normalised else "images"
    paper, ink = rcParams["axes.facecolor"], rcParams["text.color"]
    colours = LinearSegmentedColormap.from_list("share", [paper, "C0"])
    # a linear scale would show little beside the diagonal
    image = axes.imshow(shown, cmap=colours, norm=PowerNorm(0.4, vmin=0, vmax=max(float(shown.max()), 1e-9)))
    if len(classes) <= MAX_ANNOTATED_CLASSES:
        for (row, column), value in np.ndenumerate(shown):
            text = f"{value:.1f}" if normalised else f"{value:.0f}"
            if value:
                colour = paper if value > 0.35 * shown.max() else ink
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
        names = [class_label(name) for name in classes]
        axes.set_xticks(range(len(classes)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), names)
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix ({unit})")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


@styled
def class_scores(table: Mapping[str, Mapping[str, Any]]) -> StyledFigure:
    """Returns the scores of each class (of metrics.json) with 95% confidence intervals, the lowest F1 at the bottom."""
    known = {name: row for name, row in table.items() if row["f1"] is not None}
    names = sorted(known, key=lambda name: known[name]["f1"])
    figure = StyledFigure(figsize=(FULL_WIDTH[0], 1.2 + 0.32 * max(len(names), 1)))
    axes = figure.subplots()
    offsets, markers = {"precision": -0.2, "f1": 0.2}, {"average_precision": "x", "roc_auc": "d"}
    for score, label in CLASS_SCORES.items():
        rows = {index: known[name] for index, name in enumerate(names) if known[name].get(score) is not None}
        if not rows:
            continue
        values = np.array([100 * row[score] for row in rows.values()])
        errors = None
        if score not in markers:
            bounds = np.array([row[f"{score}_interval"] for row in rows.values()])
            errors = np.abs(100 * bounds.T - values)
        places, marker = np.array([*rows]) + offsets.get(score, 0), markers.get(score, "o")
        axes.errorbar(values, places, xerr=errors, fmt=marker, markersize=3.5, linewidth=1.2, label=label)
    axes.set_yticks(range(len(names)), [class_label(name) for name in names])
    axes.set(xlabel="score (%) with 95% confidence interval")
    axes.legend(loc="lower left", ncols=5, bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
    return figure


@styled
def class_counts(counts: Mapping[str, Sequence[int]], classes: Sequence[str]) -> StyledFigure:
    """Returns the number of images of each class, a bar for each split (name -> counts)."""
    figure = StyledFigure(figsize=(FULL_WIDTH[0], 1.2 + 0.3 * len(classes)))
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


@styled
def reliability(calibrations: Mapping[str, Mapping[str, Any]], images: int) -> StyledFigure:
    """Returns a reliability diagram for each calibration (label -> metrics) of so many images, with the share of predictions by
    confidence."""
    figure = StyledFigure(figsize=(FULL_WIDTH[0], 3.8) if len(calibrations) > 1 else (3.7, 3.6))
    panels = figure.subplots(1, len(calibrations), sharey=True, squeeze=False)[0]
    for axes, (label, found) in zip(panels, calibrations.items(), strict=True):
        bins, width = found["reliability"], 1 / len(found["reliability"])
        filled = [entry for entry in bins if entry["images"]]
        lefts = np.array([index * width for index, entry in enumerate(bins) if entry["images"]])
        shares = np.array([entry["images"] for entry in filled]) / sum(entry["images"] for entry in filled)
        axes.bar(lefts, [entry["accuracy"] for entry in filled], width, align="edge", edgecolor="white", label="accuracy")
        axes.plot(lefts + width / 2, shares, color="C1", marker="o", markersize=3, label="share of predictions")
        axes.plot([0, 1], [0, 1], color="#888888", linestyle="--", linewidth=1)
        title = label if images < FEW_IMAGES else f"{label}: ECE {found['ece']:.2%}"
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", title=title)
    panels[0].legend(loc="upper left")
    return figure


@styled
def ranking_curves(curves: Mapping[str, Any]) -> StyledFigure:
    """Returns the ROC and precision-recall curves of each class against the rest, and their mean (`ranking`)."""
    figure = StyledFigure(figsize=(FULL_WIDTH[0], 3.8))
    roc, precision_recall = figure.subplots(1, 2)
    names = list(curves["classes"])
    is_few = len(names) <= MAX_NAMED_CURVES
    lines: list[tuple[Any, dict[str, Any]]] = []
    for index, name in enumerate(names):
        look = {"color": f"C{index}", "linestyle": "-" if index < COLOURS else "--", "label": class_label(name, 16)}
        lines.append((curves["classes"][name], {"linewidth": 1.0, **(look if is_few else {"color": "#888888"})}))
    lines.append((curves["macro"], {"linewidth": 2.0, "color": rcParams["text.color"], "label": "mean of all"}))
    for curve, look in lines:
        roc.plot(curves["false_positive_rate"], curve["true_positive_rate"], **look)
        precision_recall.plot(curves["recall"], curve["precision"], **look)
    macro = curves["macro"]
    roc.set(xlabel="false positive rate (1 - specificity)", ylabel="true positive rate (sensitivity)", ylim=(0, 1.02))
    roc.set_title(f"ROC, mean area {macro['roc_auc']:.4f}")
    precision_recall.set(xlabel="recall (sensitivity)", ylabel="precision", ylim=(0, 1.02))
    precision_recall.set_title(f"Precision and recall, mean AP {macro['average_precision']:.4f}")
    roc.legend(loc="lower right", fontsize=7)
    return figure


@styled
def coverage(rows: Sequence[Mapping[str, float]]) -> StyledFigure:
    """Returns the accuracy of selective prediction by coverage (rows of `coverage_table`)."""
    figure = StyledFigure(figsize=(3.7, 3.0))
    axes = figure.subplots()
    axes.plot([100 * row["coverage"] for row in rows], [100 * row["accuracy"] for row in rows], marker="o", markersize=3)
    axes.set(xlabel="coverage (% of images, most confident first)", ylabel="accuracy (%)", title="Selective prediction")
    axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
    return figure
