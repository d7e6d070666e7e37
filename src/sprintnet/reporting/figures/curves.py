"""Figures of curves: training, the schedule, the learning-rate finder, accuracy over time."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.ticker import LogFormatter

from sprintnet.reporting.figures.predictions import class_label
from sprintnet.reporting.figures.style import FULL_WIDTH, StyledFigure, styled

MAX_MARKED_EPOCHS = 40


class _PlainMinorFormatter(LogFormatter):
    """Plain numbers at the minor ticks that LogFormatter would label, in its powers of ten."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


@styled
def training_curves(rows: Sequence[Mapping[str, Any]], val_name: str) -> StyledFigure:
    """Returns loss and accuracy by epoch (rows of results.csv); `val_name` labels the curves of the evaluation images."""
    figure = StyledFigure(figsize=FULL_WIDTH)
    epochs = [int(row["epoch"]) for row in rows]
    panels = (("loss", 1, "Loss"), ("accuracy", 100, "Accuracy (%)"))
    for axes, (metric, factor, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for part, label in (("train", "training, augmented"), ("val", val_name)):
            values = [factor * float(row[f"{part}_{metric}"]) for row in rows]
            axes.plot(epochs, values, marker="o" if len(epochs) < MAX_MARKED_EPOCHS else "", markersize=3, label=label)
        axes.set(xlabel="epoch", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.axes[0].legend()
    return figure


@styled
def schedule_curves(epochs: Sequence[float], curves: Mapping[str, Sequence[float]]) -> StyledFigure:
    """Returns a panel for each curve (label -> values) over epochs, such as learning rate and momentum."""
    figure = StyledFigure(figsize=FULL_WIDTH)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (label, values) in zip(panels, curves.items(), strict=True):
        axes.plot(epochs, values)
        axes.set(xlabel="epoch", title=label.capitalize())
        axes.set_ylim(bottom=0, top=1.08 * max(values) or 1)
        axes.set_xlim(left=0)
    return figure


@styled
def penalty_curves(fit: Mapping[str, Any]) -> StyledFigure:
    """Returns loss and accuracy in cross-validation by the penalty of the last layer (head_fit.json), the chosen one marked."""
    figure = StyledFigure(figsize=FULL_WIDTH)
    for axes, (values, title) in zip(
        figure.subplots(1, 2),
        ((fit["losses"], "Loss"), ([100 * each for each in fit["accuracies"]], "Accuracy (%)")),
        strict=True,
    ):
        axes.plot(fit["strengths"], values, marker="o", markersize=3)
        axes.axvline(fit["strength"], linestyle="--", linewidth=1, color="C6", label=f"chosen: {fit['strength']:.2g}")
        axes.set(xscale="log", xlabel="penalty", title=title)
    figure.axes[0].legend()
    return figure


@styled
def accuracy_over_time(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    target: float | None,
    tta: Mapping[str, Mapping[str, float]] | None = None,
) -> StyledFigure:
    """Returns validation accuracy against training time, a line for each run (label -> rows of results.csv).

    TTA results (label -> accuracy, seconds) are stars at the ends of the lines.
    """
    figure = StyledFigure(figsize=(6.4, 3.4 + 0.2 * len(runs)))
    axes = figure.subplots()
    times = {label: list(accumulate(float(row["train_seconds"]) for row in rows)) for label, rows in runs.items()}
    unit, name = (60, "minutes") if max(map(max, times.values())) >= 300 else (1, "seconds")
    for label, rows in runs.items():
        accuracies = [100 * float(row["val_accuracy"]) for row in rows]
        seconds = np.array(times[label])
        axes.plot(seconds / unit, accuracies, marker="o", markersize=3, label=class_label(label, 60))
        if result := (tta or {}).get(label):
            end = ((seconds[-1] + result["seconds"]) / unit, 100 * result["accuracy"])
            axes.plot(*end, marker="*", markersize=9, color=axes.lines[-1].get_color(), linestyle="none")
            axes.annotate("TTA", end, (-6, 3), textcoords="offset points", ha="right", fontsize=7)
    if len(runs) > 1:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(_PlainMinorFormatter())
    else:
        axes.set_xlim(left=0)
    title = "Accuracy over time" + (f": {class_label(next(iter(runs)), 60)}" if len(runs) == 1 else "")
    axes.set(xlabel=f"training time ({name})", ylabel="accuracy (%)", title=title)
    if target is not None:
        axes.axhline(100 * target, color="#777777", linewidth=0.8, linestyle="--")
        axes.annotate(f"{target:.0%}", (1, 100 * target), (3, 0), ("axes fraction", "data"), "offset points", va="center")
    if len(runs) > 1:
        figure.legend(loc="outside lower left")  # lines of different times fill the axes
    return figure


@styled
def lr_sweeps(sweeps: Sequence[Mapping[str, Any]]) -> StyledFigure:
    """Returns loss over learning rate, a line for each seed, with the suggestions of the first (entries of lr_finder.json)."""
    figure = StyledFigure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed loss", title="Learning-rate finder")
    for number, sweep in enumerate(sweeps):
        alpha = 1 if number == 0 else 0.35
        axes.plot(sweep["rates"], sweep["smoothed"], color="C0", alpha=alpha, label=f"seed {sweep['seed']}")
    first = sweeps[0]
    lowest, highest = min(first["smoothed"]), first["smoothed"][0]
    height = (highest - lowest) or 1.0  # a loss that only rises
    axes.set_ylim(lowest - 0.1 * height, highest + 0.5 * height)
    for number, (name, rate) in enumerate(first["suggestions"].items(), 1):
        loss = np.interp(np.log(rate), np.log(first["rates"]), first["smoothed"])
        axes.plot(rate, loss, marker="o", color=f"C{number}", linestyle="", label=f"{name}: {rate:.3g}")
    axes.legend(loc="lower left")
    return figure
