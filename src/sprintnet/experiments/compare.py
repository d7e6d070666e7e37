"""Statistics over runs: the summary of a study, and whether two studies differ by more than their spread."""

import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE_LEVEL = 0.95
POWER = 0.8
MAX_RUNS = 1_000_000
TINY = 1e-9  # of the difference: what rounding leaves of a spread of zero


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
    """How b differs from a: a t-test of the means, Hedges' g, and the runs a side for a power of 80%.

    Where the differences do not vary, their spread is unknown: p is 1, and there is no interval (NaN).
    """

    a: Summary
    b: Summary
    difference: float
    low: float
    high: float
    p: float
    effect: float
    runs_needed: int | None


def summarise(values: Sequence[float], overlap: float = 0.0) -> Summary:
    """Returns the summary of one or more values; a single one has no spread (NaN).

    The folds of a cross-validation share training images: with `overlap`, the images evaluated in a fold over those trained on,
    the variance of the mean is sd^2 (1/n + overlap) instead of sd^2 / n (Nadeau and Bengio 2003, "Inference for the
    generalization error").
    """
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    margin = float(stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, n - 1)) * sd * math.sqrt(1 / n + overlap)
    return Summary(n, mean, sd, mean - margin, mean + margin)


def prediction_interval(n: int, mean: float, sd: float, level: float = CONFIDENCE_LEVEL) -> tuple[float, float]:
    """Returns the bounds between which one more run falls with a probability of `level`, from those of two or more runs."""
    margin = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd * math.sqrt(1 + 1 / n)
    return mean - margin, mean + margin


def compare(a: Sequence[float], b: Sequence[float], *, is_paired: bool = False, overlap: float = 0.0) -> Comparison:
    """Returns how b differs from a, each of two or more values: of different runs (Welch 1947), or in pairs (Student 1908).

    Of the pairs of a cross-validation, which has an `overlap` (see `summarise`), by the corrected resampled t-test. Hedges' g
    (1981) is that of unpaired values. `runs_needed` is None where a million runs would not be enough, and for folds, whose
    number changes what they are trained on.
    """
    assert is_paired or not overlap
    first, second = summarise(a, overlap), summarise(b, overlap)
    difference = second.mean - first.mean
    changes = summarise([after - before for before, after in zip(a, b, strict=True)], overlap) if is_paired else None
    degrees = first.n + second.n - 2
    pooled = math.sqrt(((first.n - 1) * first.sd**2 + (second.n - 1) * second.sd**2) / degrees)
    effect = math.copysign(math.inf, difference) if difference else 0.0
    if pooled > TINY * abs(difference):
        effect = difference / pooled * (1 - 3 / (4 * degrees - 1))
    if not (changes.sd if changes else pooled) > TINY * abs(difference):
        # by chance, where accuracies are of few images: of two equal recipes, with two seeds, in one of 20 studies
        return Comparison(first, second, difference, math.nan, math.nan, 1.0, effect, None)
    if changes:
        distance = abs(difference) / (changes.sd * math.sqrt(1 / changes.n + overlap))
        p = 2 * float(stats.t.sf(distance, changes.n - 1))
        needed = None if overlap else pairs_needed(difference, changes.sd)
        return Comparison(first, second, difference, changes.low, changes.high, p, effect, needed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # SciPy warns where one side does not vary
        test = stats.ttest_ind(b, a, equal_var=False)
    interval = test.confidence_interval(CONFIDENCE_LEVEL)
    low, high, p = map(float, (interval.low, interval.high, test.pvalue))
    return Comparison(first, second, difference, low, high, p, effect, runs_needed(difference, first.sd, second.sd))


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
