"""Figures from saved arrays and rows; drawing needs no torch."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("light.mplstyle")


def accuracy_over_time(runs: Mapping[str, Sequence[Mapping[str, Any]]], target: float | None, path: Path) -> None:
    """Draws validation accuracy against training time, a line a run (label -> rows of results.csv), as PNG or SVG."""
    with style.context(STYLE):
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.subplots()
        times = {label: list(accumulate(float(row["train_seconds"]) for row in rows)) for label, rows in runs.items()}
        unit, name = (60, "minutes") if max(map(max, times.values())) >= 300 else (1, "seconds")
        for label, rows in runs.items():
            accuracies = [100 * float(row["val_accuracy"]) for row in rows]
            axes.plot([seconds / unit for seconds in times[label]], accuracies, marker="o", markersize=3, label=label)
        axes.set_xlim(left=0)
        title = "Accuracy over time" + (f": {next(iter(runs))}" if len(runs) == 1 else "")
        axes.set(xlabel=f"{name} of training", ylabel="accuracy, %", title=title)
        if target is not None:
            axes.axhline(100 * target, color="#777777", linewidth=0.8, linestyle="--")
            axes.annotate(f"{target:.0%}", (1, 100 * target), (3, 0), ("axes fraction", "data"), "offset points", va="center")
        if len(runs) > 1:
            axes.legend(loc="lower right")
        _save(figure, path)


def lr_sweeps(sweeps: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws loss over learning rate, a line a seed, with the suggested rates of the first (lr_finder.json's entries)."""
    with style.context(STYLE):
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.subplots()
        axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed loss", title="Learning-rate finder")
        for number, found in enumerate(sweeps):
            label = f"seed {found['seed']}"
            axes.plot(found["rates"], found["smoothed"], color="C0", alpha=1 if number == 0 else 0.35, label=label)
        first = sweeps[0]
        lowest, highest = min(first["smoothed"]), first["smoothed"][0]
        axes.set_ylim(lowest - 0.1 * (highest - lowest), highest + 0.5 * (highest - lowest))
        for number, (name, rate) in enumerate(first["suggestions"].items(), 1):
            height = np.interp(np.log(rate), np.log(first["rates"]), first["smoothed"])
            axes.plot(rate, height, marker="o", color=f"C{number}", linestyle="", label=f"{name}: {rate:.3g}")
        axes.legend(loc="upper left")
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
