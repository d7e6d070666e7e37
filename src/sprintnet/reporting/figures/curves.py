"""Figures of what changes over time: training curves, the schedule, the learning-rate finder, accuracy over seconds."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sprintnet.reporting.figures.predictions import class_label
from sprintnet.reporting.figures.style import WIDE


def training_curves(rows: Sequence[Mapping[str, Any]], val_name: str) -> Figure:
    """Returns loss and accuracy of training and validation by epoch (rows of results.csv); `val_name` says on which images."""
    figure = Figure(figsize=WIDE)
    loss, accuracy = figure.subplots(1, 2)
    epochs = [int(row["epoch"]) for row in rows]
    for axes, figure_name, factor, unit in ((loss, "loss", 1, "loss"), (accuracy, "accuracy", 100, "accuracy, %")):
        for part, label in (("train", "training, augmented"), ("val", val_name)):
            values = [factor * float(row[f"{part}_{figure_name}"]) for row in rows]
            axes.plot(epochs, values, marker="o" if len(epochs) < 40 else "", markersize=3, label=label)
        axes.set(xlabel="epoch", title=unit.capitalize())
        axes.xaxis.get_major_locator().set_params(integer=True)
    loss.legend()
    return figure


def schedule_curves(positions: Sequence[float], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Returns one panel a curve (label -> values) over positions in epochs, such as learning rate and momentum."""
    figure = Figure(figsize=WIDE)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (label, values) in zip(panels, curves.items(), strict=True):
        axes.plot(positions, values)
        axes.set(xlabel="epoch", title=label.capitalize())
        axes.set_ylim(bottom=0, top=1.08 * max(values) or 1)
        axes.set_xlim(left=0)
    return figure


def accuracy_over_time(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    target: float | None,
    tta_line: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Returns validation accuracy against training time, a line a run (label -> rows of results.csv).

    What all answers over six views came to (label -> accuracy, seconds) is a star at the end of its line.
    """
    figure = Figure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    times = {label: list(accumulate(float(row["train_seconds"]) for row in rows)) for label, rows in runs.items()}
    longest = max(map(max, times.values()))
    unit, name = (60, "minutes") if longest >= 300 else (1, "seconds")
    for label, rows in runs.items():
        accuracies = [100 * float(row["val_accuracy"]) for row in rows]
        axes.plot(
            [seconds / unit for seconds in times[label]], accuracies, marker="o", markersize=3, label=class_label(label, 60)
        )
        if again := (tta_line or {}).get(label):
            end = ((times[label][-1] + again["seconds"]) / unit, 100 * again["accuracy"])
            axes.plot(*end, marker="*", markersize=9, color=axes.lines[-1].get_color(), linestyle="none")
            side = 1 if len(runs) > 1 and times[label][-1] < longest / 5 else -1  # where the label has room
            axes.annotate(
                "six views", end, (6 * side, 3), textcoords="offset points", ha="left" if side > 0 else "right", fontsize=7
            )
    axes.set_xlim(left=0)
    title = "Accuracy over time" + (f": {class_label(next(iter(runs)), 60)}" if len(runs) == 1 else "")
    axes.set(xlabel=f"{name} of training", ylabel="accuracy, %", title=title)
    if target is not None:
        axes.axhline(100 * target, color="#777777", linewidth=0.8, linestyle="--")
        axes.annotate(f"{target:.0%}", (1, 100 * target), (3, 0), ("axes fraction", "data"), "offset points", va="center")
    if len(runs) > 1:
        axes.legend(loc="lower right")
    return figure


def lr_sweeps(sweeps: Sequence[Mapping[str, Any]]) -> Figure:
    """Returns loss over learning rate, a line a seed, with the suggested rates of the first (lr_finder.json's entries)."""
    figure = Figure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed loss", title="Learning-rate finder")
    for number, found in enumerate(sweeps):
        label = f"seed {found['seed']}"
        axes.plot(found["rates"], found["smoothed"], color="C0", alpha=1 if number == 0 else 0.35, label=label)
    first = sweeps[0]
    lowest, highest = min(first["smoothed"]), first["smoothed"][0]
    height = (highest - lowest) or 1.0  # a loss that only rises
    axes.set_ylim(lowest - 0.1 * height, highest + 0.5 * height)
    for number, (name, rate) in enumerate(first["suggestions"].items(), 1):
        loss = np.interp(np.log(rate), np.log(first["rates"]), first["smoothed"])
        axes.plot(rate, loss, marker="o", color=f"C{number}", linestyle="", label=f"{name}: {rate:.3g}")
    axes.legend(loc="upper left")
    return figure
