"""Statistics over several runs, as lines for the terminal."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sprintnet.reporting.text.table import table_lines
from sprintnet.reporting.text.times import seconds_text

TIMES, CALIBRATED = "training seconds", "ECE calibrated"
ROUNDING = 1e-9  # of the mean: what it leaves of a spread of zero
SMALLEST_P = 0.0001  # smaller ones are not told apart
SMALLEST_CHANGE = 0.001  # below it a difference of losses has two digits, however small it is
SUGGESTIONS = {  # what the suggestions of the learning-rate finder are
    "steepest": "the loss falls fastest",
    "minimum": "a tenth of where the loss is lowest",
    "valley": "the middle of the longest fall of the loss, as in fastai",
    "slide": "where the slope of the loss changes least, from the right, as in fastai",
}


def run_line(metrics: Mapping[str, Sequence[float]]) -> str:
    """Returns the metrics of the last run on one line."""
    return ", ".join(f"{label} {_text(label, values[-1])}" for label, values in metrics.items())


def summary_lines(summaries: Mapping[str, Any]) -> Iterator[str]:
    """Yields a table of summaries (`experiments.compare.Summary`) by metric."""
    rows = [
        [label, _text(label, each.mean), _text(label, each.sd), _interval(label, each)] for label, each in summaries.items()
    ]
    yield from table_lines(["metric", "mean", "sd", "95% CI of the mean"], rows)
    if not all(map(_varies, summaries.values())):
        yield "without an interval: nothing varies, so that the spread is unknown; more runs are needed"


def out_of_fold_lines(metrics: Mapping[str, float], folds: int) -> Iterator[str]:
    """Yields the metrics over all images of a cross-validation, each evaluated by the network that was trained without it."""
    values = ", ".join(f"{label} {_text(label, metrics[label])}" for label in metrics if label != "images")
    yield f"out of fold, {metrics['images']:,} images, each judged once: {values}"
    yield f"intervals of the mean allow for the training images that the {folds} folds share (Nadeau and Bengio 2003)"


def machine_lines(different: Sequence[str]) -> Iterator[str]:
    """Yields a caution where runs of studies come from different machines or versions."""
    if different:
        yield f"caution: the runs differ in {'; '.join(different)}: results may differ for that alone"


def comparison_lines(comparisons: Mapping[str, Any], is_paired: bool, split: str, overlap: float = 0.0) -> Iterator[str]:
    """Yields a table of comparisons (`experiments.compare.Comparison`) by metric, and how they were made."""
    rows = []
    for label, found in comparisons.items():
        sides = [f"{_text(label, side.mean)} ({_text(label, side.sd)})" for side in (found.a, found.b)]
        is_tested = not math.isnan(found.low)
        needed = f"{found.runs_needed:,}" if found.runs_needed and is_tested else "-"
        difference = [_change(label, found.difference), _change_interval(label, found) if is_tested else "-"]
        rows.append([label, *sides, *difference, _p_text(found.p) if is_tested else "-", f"{found.effect:.2f}", needed])
    yield from table_lines(
        [f"metric ({split})", "A mean (sd)", "B mean (sd)", "B - A", "95% CI", "p", "g", "runs needed"], rows
    )
    pairs = next(iter(comparisons.values())).a.n
    test = "Welch's t-test, since A and B do not have the same images and seeds"
    if is_paired:
        test = f"paired t-test of {pairs} pairs, since A and B have the same images and seeds"
    if overlap:
        test = "corrected resampled t-test (Nadeau and Bengio 2003) of the folds, which share training images"
    yield f"p: {test}; g: Hedges' g (effect size, unpaired); runs needed: on each side, for a power of 80% at the 5% level"
    yield "each metric is tested by itself: decide beforehand which one counts; other images of the same kind add to the spread"
    if any(math.isnan(found.low) for label, found in comparisons.items() if label != TIMES):
        yield "without p: nothing varies, so that the spread is unknown; more runs are needed"
    if TIMES in comparisons:
        yield "times are not tested: runs that were not made in turn are no fair comparison of speed"


def suggestion_lines(
    sweeps: Sequence[Mapping[str, Any]], config: Any, recommended: str, all_rules: bool = False
) -> Iterator[str]:
    """Yields the learning rate that sweeps of a Config (entries of lr_finder.json) recommend, of several the median and range.

    With `all_rules` those of the other rules follow.
    """
    setting = "muon.max_lr" if config.muon.max_lr else "optim.max_lr"
    headers = [f"suggestion for {setting}", f"median of {len(sweeps)} seeds", "lowest", "highest"]
    rows, peak = [], 0.0
    for name in sorted(SUGGESTIONS, key=lambda name: name != recommended):
        rates = [sweep["suggestions"][name] for sweep in sweeps]
        numbers = (statistics.median(rates), min(rates), max(rates))
        peak = peak or numbers[0]
        if all_rules or name == recommended:
            rows.append([f"{name} ({SUGGESTIONS[name]})", *(f"{number:.3g}" for number in numbers)])
    if len(sweeps) == 1:
        headers, rows = [headers[0], "learning rate"], [row[:2] for row in rows]
    yield from table_lines(headers, rows)
    if not all_rules:
        others = [name for name in SUGGESTIONS if name != recommended]
        yield f"lr_find=true takes this one; other rules, shown on request: {', '.join(others)}"
    yield f"the recipe's {setting}, at its batch size: {config.peak_lr:g}"
    found = config.with_peak(peak)
    taken = {"muon.max_lr": found.muon.max_lr, "optim.max_lr": found.optim.max_lr, "optim.head_lr": found.optim.head_lr}
    yield f"to train with {recommended}: {' '.join(f'{key}={rate:.3g}' for key, rate in taken.items() if rate)}"


def _interval(label: str, found: Any) -> str:
    if not _varies(found):
        return "-"
    low, high = max(found.low, 0.0), found.high  # no metric is below 0
    if _is_share(label):
        high = min(high, 1.0)
    return f"{_text(label, low)} to {_text(label, high)}"


def _varies(found: Any) -> bool:
    return bool(found.sd > ROUNDING * abs(found.mean))


def _change(label: str, value: float) -> str:
    """Returns a difference; of shares in points, such as `+1.25 points`."""
    if label == TIMES:
        return f"{'+' if value > 0 else ''}{_text(label, value)}"
    if _is_share(label):
        return f"{100 * value:+.2f} points"
    return f"{value:+.4f}" if not value or abs(value) >= SMALLEST_CHANGE else f"{value:+.2g}"


def _p_text(p: float) -> str:
    return f"{p:.4f}" if p >= SMALLEST_P else f"<{SMALLEST_P}"


def _change_interval(label: str, found: Any) -> str:
    return f"{_change(label, found.low).removesuffix(' points')} to {_change(label, found.high)}"


def _is_share(label: str) -> bool:
    return "accuracy" in label or label.startswith(("mAP", "ECE"))


def _text(label: str, value: float) -> str:
    if _is_share(label):
        return f"{value:.2%}"
    return seconds_text(value).removesuffix(" s") if "seconds" in label else f"{value:.4f}"
