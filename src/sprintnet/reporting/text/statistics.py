"""Statistics over several runs, as lines for the terminal."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sprintnet.reporting.text.table import table_lines

SUGGESTIONS = {
    "steepest": "where the loss falls fastest; used by lr_find=true",
    "minimum": "a tenth of the learning rate with the lowest loss",
    "valley": "the middle of the longest fall of the loss",
}
"""What each suggestion of the learning-rate finder is."""


def run_line(metrics: Mapping[str, Sequence[float]]) -> str:
    """Returns the metrics of the last run on one line."""
    return ", ".join(f"{label} {_text(label, values[-1])}" for label, values in metrics.items())


def summary_lines(summaries: Mapping[str, Any]) -> Iterator[str]:
    """Yields a table of summaries (`experiments.study.Summary`) by metric."""
    yield from table_lines(
        ["metric", "mean", "sd", "95% CI of the mean"],
        [
            [label, _text(label, summary.mean), _text(label, summary.sd), _interval(label, summary)]
            for label, summary in summaries.items()
        ],
    )


def comparison_lines(comparisons: Mapping[str, Any]) -> Iterator[str]:
    """Yields a table of comparisons (`experiments.study.Comparison`) by metric."""
    rows = []
    for label, found in comparisons.items():
        sides = [f"{_text(label, side.mean)} ({_text(label, side.sd)})" for side in (found.a, found.b)]
        needed = f"{found.runs_needed:,}" if found.runs_needed else "-"
        difference = [_text(label, found.difference), _interval(label, found)]
        rows.append([label, *sides, *difference, f"{found.p:.4f}", f"{found.effect:.2f}", needed])
    yield from table_lines(["metric", "A mean (sd)", "B mean (sd)", "B - A", "95% CI", "p", "g", "runs needed"], rows)
    yield "p: Welch's t-test; g: Hedges' g (effect size); runs needed: on each side, for a power of 80% at the 5% level"


def suggestion_lines(sweeps: Sequence[Mapping[str, Any]], peak_lr: float) -> Iterator[str]:
    """Yields the learning rates that sweeps suggest (lr_finder.json's entries); the median and range of several seeds."""
    several = len(sweeps) > 1
    rows = []
    for name in sweeps[0]["suggestions"]:
        rates = [sweep["suggestions"][name] for sweep in sweeps]
        spread = [f"{min(rates):.3g} to {max(rates):.3g}"] if several else []
        rows.append([name, f"{statistics.median(rates):.3g}", *spread])
    headers = ["suggestion", "median", f"range over {len(sweeps)} seeds"] if several else ["suggestion", "learning rate"]
    header, *lines = table_lines(headers, rows)
    yield f"{header}  (the recipe's peak learning rate: {peak_lr:g})"
    for line, name in zip(lines, sweeps[0]["suggestions"], strict=True):
        yield f"{line}  {SUGGESTIONS[name]}"


def _interval(label: str, found: Any) -> str:
    return f"{_text(label, found.low)} to {_text(label, found.high)}"


def _text(label: str, value: float) -> str:
    if "accuracy" in label or label.startswith("mAP"):
        return f"{value:.2%}"
    return f"{value:.1f}" if "seconds" in label else f"{value:.4f}"
