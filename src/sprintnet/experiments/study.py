"""Many runs: one recipe under several seeds, and whether two such sets differ by more than their spread."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sprintnet.config import Config, differences, load_config, require_same_settings
from sprintnet.errors import SettingsError
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import RunFolder, evaluation_split, read_json
from sprintnet.runs.io import write_atomic, write_json
from sprintnet.training.train import train

CONFIDENCE = 0.95
POWER = 0.8
MAX_RUNS = 1_000_000

SHARED_BY_ALL_RUNS = ("code_sha256", "data_sha256", "precision")
"""What the runs of one mean must share, besides their settings."""

FIGURES = {
    "accuracy": ("judged", "accuracy"),
    "accuracy, six views": ("judged", "tta", "accuracy"),
    "mAP": ("judged", "mean_average_precision"),
    "cross-entropy": ("judged", "cross_entropy"),
    "ECE": ("judged", "calibration", "ece"),
    "ECE at temperature": ("judged", "calibration_at_temperature", "ece"),
    "temperature": ("temperature",),
    "training seconds": ("train_seconds",),
}
"""What is compared between runs: a label -> where metrics.json has it; `judged` stands for the split that judges the run."""


@dataclass(frozen=True)
class Summary:
    """What n values say of their source: mean, standard deviation, and Student's 95 % interval of the mean."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """How b differs from a: Welch's test of the means, Hedges' g, and how many runs a side would show it four times in five."""

    a: Summary
    b: Summary
    difference: float
    low: float
    high: float
    p: float
    effect: float
    runs_needed: int | None


def summarise(values: Sequence[float]) -> Summary:
    """Returns the summary of one value or more; a single one has no spread (NaN)."""
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    margin = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - margin, mean + margin)


def compare(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Returns how b differs from a, each of two values or more.

    Welch 1947; Hedges 1981. `runs_needed` is None where no number up to a million would do.
    """
    first, second = summarise(a), summarise(b)
    difference = second.mean - first.mean
    if first.sd == second.sd == 0:  # nothing varies: any difference is certain
        certain = 1.0 if difference == 0 else 0.0
        effect = math.copysign(math.inf, difference) if difference else 0.0
        return Comparison(first, second, difference, difference, difference, certain, effect, 2 if difference else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one side may not vary at all, which SciPy remarks on
        test = stats.ttest_ind(b, a, equal_var=False)
    interval = test.confidence_interval(CONFIDENCE)
    degrees = first.n + second.n - 2
    pooled = math.sqrt(((first.n - 1) * first.sd**2 + (second.n - 1) * second.sd**2) / degrees)
    return Comparison(
        first,
        second,
        difference,
        float(interval.low),
        float(interval.high),
        float(test.pvalue),
        difference / pooled * (1 - 3 / (4 * degrees - 1)),
        runs_needed(difference, first.sd, second.sd),
    )


def runs_needed(difference: float, sd_a: float, sd_b: float) -> int | None:
    """Returns how many runs a side Welch's test at 5 % needs to find this difference with a probability of 80 %."""

    def power(n: int) -> float:
        error = math.sqrt((sd_a**2 + sd_b**2) / n)
        degrees = (n - 1) * (sd_a**2 + sd_b**2) ** 2 / (sd_a**4 + sd_b**4)
        limit = stats.t.ppf((1 + CONFIDENCE) / 2, degrees)
        distance = abs(difference) / error
        return float(stats.nct.sf(limit, degrees, distance) + stats.nct.cdf(-limit, degrees, distance))

    if difference == 0 or power(MAX_RUNS) < POWER:
        return None
    low, high = 1, 2
    while power(high) < POWER:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def run_study(config: Config, folder: RunFolder, seeds: int) -> Iterator[dict[str, Any]]:
    """Trains one ordinary run a seed (`seed-0`, ...) and yields its metrics; finished ones are read, a cut one goes on.

    study.json in the folder has the summary of all its finished runs. Raises SettingsError where the folder's study has other
    settings, or its runs come from other code, data or precision.
    """
    require_same_settings(folder.config, config)
    for seed in range(config.seed, config.seed + seeds):
        run = RunFolder(folder.path / f"seed-{seed}")
        if not run.metrics.exists():
            _require_same_code(folder.path)
        metrics = train(replace(config, seed=seed), run, resume=run.config.exists()).metrics
        write_atomic(folder.config, config.to_toml())  # once a run has shown that the settings are sound
        finished = _finished_runs(folder.path)
        if len(finished) > 1:
            summaries = {label: asdict(summarise(values)) for label, values in figures(finished).items()}
            write_json(folder.path / "study.json", summaries)
        yield metrics


def figures(runs: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Returns the figures of runs, from their metrics: label -> one value a run; what a run lacks is left out for all."""
    found = {}
    for label, path in FIGURES.items():
        values = []
        for metrics in runs:
            value: Any = metrics
            for key in path:
                value = value.get(evaluation_split(metrics) if key == "judged" else key) if value else None
            values.append(value)
        if None not in values:
            found[label] = values
    return found


def read_runs(path: str | Path) -> list[dict[str, Any]]:
    """Returns the metrics of the finished runs of a study's folder, or of any folder that holds run folders.

    Raises SettingsError for fewer than two, or for runs that differ in more than their seed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise SettingsError(f"{path}: there is no such folder; `sprintnet study RECIPE --seeds 10` makes one under runs/study")
    runs = _finished_runs(folder)
    if len(runs) < 2:
        raise SettingsError(
            f"{path}: {len(runs)} finished runs; a spread needs two or more: sprintnet study RECIPE --seeds 10 --resume"
        )
    return runs


def _require_same_code(folder: Path) -> None:
    """Raises SettingsError where a folder's finished runs come from other code than would train now."""
    now = environment_record()
    for file in folder.glob("*/metrics.json"):
        then = read_json(RunFolder(file.parent).environment)
        if then["code_sha256"] != now["code_sha256"]:
            raise SettingsError(
                f"{file.parent}: was trained by other code (commit {then['commit']}, now {now['commit']}; sprintnet "
                f"{then['versions']['sprintnet']}, now {now['versions']['sprintnet']}); runs of both cannot be averaged: "
                "go back to that code, or start another study with --name"
            )


def _finished_runs(folder: Path) -> list[dict[str, Any]]:
    """Returns the metrics of the finished runs in a folder; raises SettingsError where they do not belong together."""
    runs = [RunFolder(file.parent) for file in sorted(folder.glob("*/metrics.json"))]
    for run in runs[1:]:
        first, other = (read_json(each.environment) for each in (runs[0], run))
        changed = [key for key in SHARED_BY_ALL_RUNS if first[key] != other[key]]
        settings = [replace(load_config(each.config), seed=0) for each in (runs[0], run)]
        if changed or differences(*settings):
            what = ", ".join([*changed, *differences(*settings)])
            raise SettingsError(
                f"{run.path}: differs from {runs[0].path} in {what}; a mean over both says nothing; move one of them away"
            )
    return [read_json(run.metrics) for run in runs]
