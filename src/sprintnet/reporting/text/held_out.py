"""What scores of held-out images promise, and how it fared, as text: sets of classes and unknown images in metrics.json."""

import math
from collections.abc import Mapping
from typing import Any

from sprintnet.reporting.text.task_scores import interval, percent

HEADS = ("asked", "sets", "have the true class", "of the worst class", "mean size", "one class alone")


def set_rows(sets: Mapping[str, Any]) -> list[list[str]]:
    """Returns a row of cells for each coverage, method, and by class or not; the columns are HEADS."""
    return [
        [
            percent(row["coverage"], 0),
            row["method"] + (" by class" if row["by_class"] else ""),
            f"{percent(row['covered'])} ({interval(row['interval'])})",
            percent(row["lowest_class"], 1),
            f"{row['mean_size']:.2f}",
            percent(row["single"], 1),
        ]
        for row in sets["rows"]
    ]


def unknown_text(unknown: Mapping[str, Any]) -> str:
    """Returns how many images of known classes are taken for unknown."""
    rows = [f"{percent(row['found'])} ({interval(row['interval'])}) with --unknown {row['asked']:g}" for row in unknown["rows"]]
    found = f"false alarms on {unknown['images']:,} other images: {', '.join(rows)}" if rows else "too few to tell"
    return f"unknown images: from {unknown['held_out']:,} held-out images; {found}"


def lowest_rate(unknown: Mapping[str, Any]) -> float:
    """Returns the lowest share of false alarms, of 1 % or more, that the scores of so many held-out images allow."""
    images: int = unknown["held_out"]
    return max(0.01, math.ceil(100 / (images + 1)) / 100)


def set_text(sets: Mapping[str, Any]) -> str:
    """Returns where the sets come from, and on how many images they were tried."""
    return (
        f"sets of classes by conformal prediction: from {sets['held_out']:,} held-out images, on which their "
        f"temperature was not fitted; tried on {sets['images']:,} others"
    )


def coverage_spread_text(sets: Mapping[str, Any]) -> str:
    """Returns what a promised coverage means for one model: the promise is a mean over draws of the held-out images.

    Of one draw of n images the coverage has about the variance c (1 - c) / (n + 2), that of a beta distribution (Vovk 2012).
    """
    return f"the promise is a mean over draws of the held-out images: {draw_text(0.9, sets['held_out'])}"


def draw_text(share: float, images: int) -> str:
    """Returns the range of a promised share for one draw of so many held-out images."""
    margin = 1.96 * math.sqrt(share * (1 - share) / (images + 2))
    low, high = (percent(min(max(end, 0.0), 1.0), 0) for end in (share - margin, share + margin))
    return f"of one draw of {images:,}, {percent(share, 0)} means {low} to {high}, in 19 cases of 20"
