"""Statistics over runs: the summary of a study, and whether two studies differ by more than their spread."""

import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sprintnet.config import differences, load_config
from sprintnet.errors import SettingsError
from sprintnet.runs.folder import STUDY_FOLDER, RunFolder, evaluation_split, find_run, read_json

CONFIDENCE_LEVEL = 0.95
POWER = 0.8
MAX_RUNS = 1_000_000

SHARED_BY_ALL_RUNS = ("code_sha256", "data_sha256", "precision")
"""What runs must have in common to be averaged, besides their settings."""

COMPARED_METRICS = {  # label -> keys in metrics.json; `evaluated` is the evaluation split
    "accuracy": ("evaluated", "accuracy"),
    "TTA accuracy": ("evaluated", "tta", "accuracy"),
    "mAP": ("evaluated", "mean_average_precision"),
    "cross-entropy": ("evaluated", "cross_entropy"),
    "ECE": ("evaluated", "calibration", "ece"),
    "ECE calibrated": ("evaluated", "calibrated", "ece"),
    "training seconds": ("train_seconds",),
}


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation of n values, and Student's 95% confidence interval of the mean."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """How b differs from a: a t-test of the means, Hedges' g, and the runs a side for a power of 80%."""

    a: Summary
    b: Summary
    difference: float
    low: float
    high: float
    p: float
    effect: float
    runs_needed: int | None


def summarise(values: Sequence[float]) -> Summary:
    """Returns the summary of one or more values; a single one has no spread (NaN)."""
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    margin = float(stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - margin, mean + margin)


def prediction_interval(n: int, mean: float, sd: float, level: float = CONFIDENCE_LEVEL) -> tuple[float, float]:
    """Returns the bounds between which one more run falls with a probability of `level`, from those of two or more runs."""
    margin = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd * math.sqrt(1 + 1 / n)
    return mean - margin, mean + margin


def compare(a: Sequence[float], b: Sequence[float], *, is_paired: bool = False) -> Comparison:
    """Returns how b differs from a, each of two or more values: of different runs (Welch 1947), or in pairs (Student 1908).

    Hedges' g (1981) is that of unpaired values. `runs_needed` is None where a million runs would not be enough.
    """
    first, second = summarise(a), summarise(b)
    difference = second.mean - first.mean
    changes = summarise([after - before for before, after in zip(a, b, strict=True)]) if is_paired else None
    degrees = first.n + second.n - 2
    pooled = math.sqrt(((first.n - 1) * first.sd**2 + (second.n - 1) * second.sd**2) / degrees)
    effect = math.copysign(math.inf, difference) if difference else 0.0
    if pooled:
        effect = difference / pooled * (1 - 3 / (4 * degrees - 1))
    if pooled == 0 or (changes and changes.sd == 0):  # nothing varies: any difference is certain
        certain = 1.0 if difference == 0 else 0.0
        return Comparison(first, second, difference, difference, difference, certain, effect, 2 if difference else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # SciPy warns where one side does not vary
        test = stats.ttest_rel(b, a) if is_paired else stats.ttest_ind(b, a, equal_var=False)
    interval = test.confidence_interval(CONFIDENCE_LEVEL)
    needed = runs_needed(difference, first.sd, second.sd) if changes is None else pairs_needed(difference, changes.sd)
    low, high, p = map(float, (interval.low, interval.high, test.pvalue))
    return Comparison(first, second, difference, low, high, p, effect, needed)


def runs_needed(difference: float, sd_a: float, sd_b: float) -> int | None:
    """Returns the runs a side that Welch's test at 5% needs to detect this difference with a power of 80%."""

    variance, share = sd_a**2 + sd_b**2, (sd_a**2 + sd_b**2) ** 2 / (sd_a**4 + sd_b**4)
    return _smallest(lambda n: _power(difference / math.sqrt(variance / n), (n - 1) * share))


def pairs_needed(difference: float, sd: float) -> int | None:
    """Returns the same of the paired test, where differences of pairs have this standard deviation."""
    return _smallest(lambda n: _power(difference * math.sqrt(n) / sd, n - 1))


def _power(distance: float, degrees: float) -> float:
    """Returns the power of a two-sided t-test at 5%, from the difference in standard errors."""
    limit = stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, degrees)
    return float(stats.nct.sf(limit, degrees, abs(distance)) + stats.nct.cdf(-limit, degrees, abs(distance)))


def _smallest(power: Callable[[int], float]) -> int | None:
    """Returns the smallest number of runs with the POWER, if there is one; the power grows with their number."""
    if power(MAX_RUNS) < POWER:
        return None
    counts = range(2, MAX_RUNS)
    return counts[0] + bisect_left(counts, True, key=lambda n: not power(n) < POWER)  # SciPy: NaN where it is almost 1


def metric_values(runs: Sequence[dict[str, Any]], split: str | None = None) -> dict[str, list[float]]:
    """Returns the compared metrics of runs: label -> one value a run; a metric that any run lacks is left out.

    They are of the split, by default the evaluation split.
    """
    found = {}
    for label, path in COMPARED_METRICS.items():
        values = []
        for metrics in runs:
            value: Any = metrics
            for key in path:
                value = value.get((split or evaluation_split(metrics)) if key == "evaluated" else key) if value else None
            values.append(value)
        if None not in values:
            found[label] = values
    return found


def read_runs(path: str | Path) -> list[dict[str, Any]]:
    """Returns the metrics of the finished runs in a study's folder, or in any folder of run folders.

    Raises SettingsError for fewer than two, or for runs that differ in more than their seed.
    """
    runs = finished_runs(find_run(path, STUDY_FOLDER))
    if len(runs) < 2:
        rule = "a standard deviation needs two or more: sprintnet study RECIPE --seeds 10 --resume"
        raise SettingsError(f"{path}: {len(runs)} finished runs; {rule}")
    return runs


def seeds(path: str | Path) -> list[int]:
    """Returns the seeds of the finished runs in a study's folder, in the order of `read_runs`."""
    return [
        load_config(file.with_name("config.toml")).seed for file in sorted(find_run(path, STUDY_FOLDER).glob("*/metrics.json"))
    ]


def data_digest(path: str | Path) -> str:
    """Returns the SHA-256 of the data that the finished runs in a study's folder share."""
    first = min(find_run(path, STUDY_FOLDER).glob("*/metrics.json"))
    digest: str = read_json(RunFolder(first.parent).environment)["data_sha256"]
    return digest


def finished_runs(folder: Path) -> list[dict[str, Any]]:
    """Returns the metrics of the finished runs in a folder, by seed; raises SettingsError where they cannot be averaged."""
    found = [RunFolder(file.parent) for file in sorted(folder.glob("*/metrics.json"))]
    runs = sorted(found, key=lambda run: load_config(run.config).seed)
    facts = [(read_json(run.environment), replace(load_config(run.config), seed=0)) for run in runs]
    for run, (environment, config) in zip(runs, facts, strict=True):
        changed = [key for key in SHARED_BY_ALL_RUNS if environment.get(key) != facts[0][0].get(key)]
        if what := ", ".join([*changed, *differences(facts[0][1], config)]):
            rule = f"differs from {runs[0].path} in {what}; they cannot be averaged; move one of them away"
            raise SettingsError(f"{run.path}: {rule}")
    return [read_json(run.metrics) for run in runs]
