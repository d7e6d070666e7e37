"""Figures of a search: the accuracy of its trials, and the winner's differences from the recipe."""

import math
import statistics
from collections.abc import Mapping, Sequence

from matplotlib.ticker import MaxNLocator

from sprintnet.reporting.figures.style import FULL_WIDTH, StyledFigure, styled

MARKERS = ("o", "s", "D", "^", "v")


@styled
def trial_accuracies(accuracies: Mapping[int, Mapping[int, float]], best: int) -> StyledFigure:
    """Returns the accuracy of every trial (epochs -> trial -> accuracy); the recipe is trial 0, its accuracies are lines."""
    figure = StyledFigure(figsize=FULL_WIDTH)
    axes = figure.subplots()
    for marker, (epochs, by_trial) in zip(MARKERS, sorted(accuracies.items()), strict=False):
        (points,) = axes.plot(
            list(by_trial),
            [100 * value for value in by_trial.values()],
            marker,
            markersize=5,
            label=f"{epochs} epoch{'s' * (epochs > 1)}",
        )
        if 0 in by_trial:
            axes.axhline(100 * by_trial[0], color=points.get_color(), linewidth=0.8, linestyle="--")
    if best:
        axes.axvline(best, color="#777777", linewidth=0.8, linestyle=":")
        axes.annotate("best", (best, 0), (3, 3), ("data", "axes fraction"), "offset points", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial (0: the recipe, dashed lines)", ylabel="accuracy on the hold-out (%)", title="Trials")
    axes.legend(loc="best")
    return figure


@styled
def final_differences(pairs: Sequence[tuple[float, float]], low: float, high: float) -> StyledFigure:
    """Returns the accuracies (recipe, winner) of each fresh seed, joined by lines, and the interval of the mean difference."""
    figure = StyledFigure(figsize=FULL_WIDTH)
    left, right = figure.subplots(1, 2)
    for recipe, winner in pairs:
        left.plot([0, 1], [100 * recipe, 100 * winner], marker="o", markersize=4, color="#777777", linewidth=0.8)
    left.set_xticks([0, 1], ["recipe", "winner"])
    left.set(ylabel="accuracy on fresh images (%)", title="Fresh seeds", xlim=(-0.3, 1.3))
    points = [100 * (winner - recipe) for recipe, winner in pairs]
    right.plot(points, [0] * len(points), "o", markersize=4, color="#777777")
    half = 0.0 if math.isnan(low) else 100 * (high - low) / 2  # no interval where the differences do not vary
    right.errorbar([statistics.fmean(points)], [0.3], xerr=[half], marker="D", capsize=4)
    right.axvline(0, color="#777777", linewidth=0.8, linestyle="--")
    right.set(xlabel="winner minus recipe (points)", title="Mean difference, 95% interval", ylim=(-0.5, 0.8))
    right.set_yticks([])
    return figure
