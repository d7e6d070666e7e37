"""Statistics over several runs, as lines for the terminal."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sprintnet.reporting.text.table import table_lines

SUGGESTIONS = {
    "steepest": "the loss falls fastest; used by lr_find=true",
    "minimum": "a tenth of where the loss is lowest",
    "valley": "the middle of the longest fall of the loss",
}
"""What the suggestions of the learning-rate finder are."""


def run_line(metrics: Mapping[str, Sequence[float]]) -> str:
    """Returns the metrics of the last run on one line."""
    return ", ".join(f"{label} {_text(label, values[-1])}" for label, values in metrics.items())


def summary_lines(summaries: Mapping[str, Any]) -> Iterator[str]:
    """Yields a table of summaries (`experiments.compare.Summary`) by metric."""
    rows = [
        [label, _text(label, each.mean), _text(label, each.sd), _interval(label, each)] for label, each in summaries.items()
    ]
    yield from table_lines(["metric", "mean", "sd", "95% CI of the mean"], rows)


def comparison_lines(comparisons: Mapping[str, Any]) -> Iterator[str]:
    """Yields a table of comparisons (`experiments.compare.Comparison`) by metric."""
    rows = []
    for label, found in comparisons.items():
        sides = [f"{_text(label, side.mean)} ({_text(label, side.sd)})" for side in (found.a, found.b)]
        needed = f"{found.runs_needed:,}" if found.runs_needed else "-"
        difference = [_text(label, found.difference), _interval(label, found)]
        rows.append([label, *sides, *difference, f"{found.p:.4f}", f"{found.effect:.2f}", needed])
    yield from table_lines(["metric", "A mean (sd)", "B mean (sd)", "B - A", "95% CI", "p", "g", "runs needed"], rows)
    yield "p: Welch's t-test; g: Hedges' g (effect size); runs needed: on each side, for a power of 80% at the 5% level"


def suggestion_lines(sweeps: Sequence[Mapping[str, Any]], peak_lr: float) -> Iterator[str]:
    """Yields the learning rates that sweeps suggest (entries of lr_finder.json); of several seeds, median and range."""
    headers = ["suggestion", f"median of {len(sweeps)} seeds", "lowest", "highest"]
    rows = []
    for name in sweeps[0]["suggestions"]:
        rates = [sweep["suggestions"][name] for sweep in sweeps]
        numbers = (statistics.median(rates), min(rates), max(rates))
        rows.append([f"{name} ({SUGGESTIONS[name]})", *(f"{number:.3g}" for number in numbers)])
    if len(sweeps) == 1:
        headers, rows = ["suggestion", "learning rate"], [row[:2] for row in rows]
    yield from table_lines(headers, rows)
    yield f"the recipe's peak learning rate: {peak_lr:g}"


def _interval(label: str, found: Any) -> str:
    return f"{_text(label, found.low)} to {_text(label, found.high)}"


def _text(label: str, value: float) -> str:
    if "accuracy" in label or label.startswith(("mAP", "ECE")):
        return f"{value:.2%}"
    return f"{value:.1f}" if "seconds" in label else f"{value:.4f}"
