"""Figures of many runs as lines of text."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

COMPARISON_WIDTHS = {
    "": -20, "A mean (sd)": 18, "B mean (sd)": 18, "B - A": 8, "95 % interval": 20, "p": 6, "g": 6, "runs needed": 11
}  # fmt: skip
COMPARISON_FOOT = "Welch's test; g: Hedges' effect size; runs needed: a side, to find this difference in four studies of five"
RULES = {
    "steepest": "where the loss falls fastest; what optim.max_lr=auto takes",
    "minimum": "a tenth of where the loss is least",
    "valley": "the middle of its longest fall",
}
"""What the learning-rate finder's suggestions are."""


def run_line(figures: Mapping[str, Sequence[float]]) -> str:
    """Returns the figures of the last run on one line."""
    return ", ".join(f"{label} {_text(label, values[-1])}" for label, values in figures.items())


def summary_line(label: str, summary: Any) -> str:
    """Returns the mean, standard deviation and interval of a figure (a Summary)."""
    mean, sd, low, high = (_text(label, value) for value in (summary.mean, summary.sd, summary.low, summary.high))
    return f"  {label:20}  {mean:>8}  {sd:>8}  {low} to {high}"


def comparison_lines(comparisons: Mapping[str, Any]) -> Iterator[str]:
    """Yields a table of figures (Comparisons by label), one a line."""
    yield _columns(COMPARISON_WIDTHS)
    for label, found in comparisons.items():
        a, b = (f"{_text(label, side.mean)} ({_text(label, side.sd)})" for side in (found.a, found.b))
        interval = f"{_text(label, found.low)} to {_text(label, found.high)}"
        needed = f"{found.runs_needed:,}" if found.runs_needed else "-"
        yield _columns([label, a, b, _text(label, found.difference), interval, f"{found.p:.4f}", f"{found.effect:.2f}", needed])
    yield COMPARISON_FOOT


def suggestion_lines(sweeps: Sequence[Mapping[str, Any]], peak_lr: float) -> Iterator[str]:
    """Yields the rates that sweeps suggest (lr_finder.json's entries): by name, the median and, of several, the range."""
    several = len(sweeps) > 1
    yield f"{'suggestion':12}  {'median' if several else 'rate':>9}  the recipe's peak is {peak_lr:g}"
    for name in sweeps[0]["suggestions"]:
        rates = [found["suggestions"][name] for found in sweeps]
        spread = f"{min(rates):.3g} to {max(rates):.3g} over {len(sweeps)} seeds: " if several else ""
        yield f"{name:12}  {statistics.median(rates):9.3g}  {spread}{RULES[name]}"


def _columns(cells: Iterable[str]) -> str:
    widths = COMPARISON_WIDTHS.values()
    return "  ".join(f"{cell:{'<' if width < 0 else '>'}{abs(width)}}" for cell, width in zip(cells, widths, strict=True))


def _text(label: str, value: float) -> str:
    if label.startswith(("accuracy", "mAP")):
        return f"{value:.2%}"
    return f"{value:.1f}" if "seconds" in label else f"{value:.4f}"
