"""Studies, comparisons, checks and learning-rate sweeps: results that a notebook and the terminal show alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sprintnet.api import configure
from sprintnet.config import Config
from sprintnet.data import validate
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import Splits
from sprintnet.datasets import IN_MEMORY, Dataset, data_settings, python_names
from sprintnet.errors import ArgumentError, SettingsError
from sprintnet.reporting.text import statistics, validation
from sprintnet.runs import folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEST_CAUTION = "these are metrics of the test set; to choose between settings, hold more images out and compare the split val"


@dataclass(frozen=True, repr=False)
class Result:
    """A result that displays as in the terminal; `details` has its values."""

    lines: tuple[str, ...]
    details: Any
    path: Path = Path()

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def plot(self) -> "Figure":
        """Returns the figure of `lr_find`: loss over learning rate."""
        if not isinstance(self.details, list) or "suggestions" not in self.details[0]:
            raise SettingsError("plot: only results of lr_find have a figure")
        from sprintnet.reporting.figures.curves import lr_sweeps

        return lr_sweeps(self.details)


@python_names()
def study(
    recipe: str | Path = "sprint94",
    data: Any = None,
    seeds: int = 10,
    *,
    jobs: int = 1,
    name: str = "",
    resume: bool = False,
    **settings: Any,
) -> Result:
    """Trains a recipe with several seeds in runs/study/NAME; returns mean, standard deviation and interval of each metric.

    `jobs` runs are trained at a time, each with its share of the cores. Other arguments as in `train`; `details` are the
    metrics of each run.
    """
    if seeds < 2:
        raise ArgumentError("seeds", seeds, "a standard deviation needs two or more")
    if jobs < 1:
        raise ArgumentError("jobs", jobs, "must be at least 1")
    config, splits = configure(recipe, data, settings)
    run = folder.new_run(name or folder.run_name(recipe), exact=bool(name), resume=resume, parent=folder.STUDY_FOLDER)
    return study_config(config, run, seeds, jobs, splits)


def study_config(config: Config, run: folder.RunFolder, seeds: int, jobs: int = 1, splits: Splits | None = None) -> Result:
    """Returns the result of `study` for a Config, in the folder of a study."""
    from sprintnet.experiments.compare import metric_values, summarise
    from sprintnet.experiments.study import run_study

    runs = []
    for metrics in run_study(config, run, seeds, splits, jobs):
        runs.append(metrics)
        print(f"{len(runs)} of {seeds}: {statistics.run_line(metric_values(runs))}", flush=True)
    summaries = {label: summarise(values) for label, values in metric_values(runs).items()}
    lines = [f"{run.path}: {len(runs)} runs", *statistics.summary_lines(summaries)]
    if folder.evaluation_split(runs[0]) == "test":
        lines.append(TEST_CAUTION)
    return Result(tuple(lines), runs, run.path)


@python_names()
def compare(a: "Result | str | Path", b: "Result | str | Path", *, split: str | None = None) -> Result:
    """Returns how study b differs from study a (results of `study` or folders): t-test and Hedges' g of each metric.

    The test is paired where both have the same seeds. `split`, val or test, defaults to the evaluation split.
    """
    if split not in (None, "val", "test"):
        raise ArgumentError("split", split, "must be val or test, or None")
    return compare_folders(*(side.path if isinstance(side, Result) else side for side in (a, b)), split=split)


def compare_folders(*folders: str | Path, split: str | None = None) -> Result:
    """Returns the result of `compare` for the folders, or names, of two studies."""
    from sprintnet.experiments.compare import compare, data_digest, metric_values, read_runs, seeds

    runs = [read_runs(path) for path in folders]
    split = split or folder.evaluation_split(runs[0][0])
    for path, each in zip(folders, runs, strict=True):
        if split not in each[0]:
            has = " and ".join(name for name in ("val", "test") if name in each[0])
            raise SettingsError(f"{path}: has metrics of {has}, not of {split}; compare on a split that both have: split={has}")
    first, second = (metric_values(each, split) for each in runs)
    is_paired = seeds(folders[0]) == seeds(folders[1])
    found = {label: compare(first[label], second[label], is_paired=is_paired) for label in first if label in second}
    sides = [f"{side}: {path}, {len(each)} runs" for side, path, each in zip("AB", folders, runs, strict=True)]
    if len({data_digest(path) for path in folders}) > 1:
        sides.append("caution: A and B have different data (images, labels or splits); this compares more than the recipes")
    if split == "test":
        sides.append(TEST_CAUTION)
    return Result((*sides, *statistics.comparison_lines(found, is_paired, split)), found)


@python_names(data_prefix="")
def check(data: Dataset | str | Path, **settings: Any) -> Result:
    """Returns the contents and the problems of a dataset; arguments as in `load_data`. `details` has the findings."""
    if isinstance(data, Dataset) and data.settings.name == IN_MEMORY:
        raise SettingsError("data: made from arrays; only datasets on disk can be checked")
    return check_settings(data.settings if isinstance(data, Dataset) else data_settings(str(data), settings))


def check_settings(settings: DataSettings) -> Result:
    """Returns the result of `check` for the settings of a dataset."""
    found = validate.check(settings)
    return Result(tuple(validation.checked_lines(settings.name, found)), found)


@python_names()
def lr_find(recipe: str | Path = "sprint94", data: Any = None, *, seeds: int = 1, **settings: Any) -> Result:
    """Returns the loss over rising learning rates with suggestions, kept in runs/lr_find; arguments as in `train`."""
    if seeds < 1:
        raise ArgumentError("seeds", seeds, "must be at least 1")
    config, splits = configure(recipe, data, settings)
    run = folder.new_run(folder.run_name(recipe), exact=False, resume=False, parent=folder.LR_FOLDER)
    return sweep_config(config, run, seeds, splits=splits)


def sweep_config(config: Config, run: folder.RunFolder, seeds: int, all_rules: bool = False, **options: Any) -> Result:
    """Returns the result of `lr_find` for a Config, in a folder; `options` are those of `lr_search.lr_find`."""
    from sprintnet.training import lr_search

    sweeps = lr_search.lr_find(config, run, seeds, **options)
    return Result(tuple(statistics.suggestion_lines(sweeps, config, lr_search.RECOMMENDED, all_rules)), sweeps, run.path)
