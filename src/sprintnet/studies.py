"""Studies, comparisons, checks and learning-rate sweeps: results that a notebook and the terminal show alike."""

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sprintnet.api import Model, configure
from sprintnet.config import Config, load_config
from sprintnet.data import validate
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import Splits
from sprintnet.datasets import IN_MEMORY, Dataset, data_settings, python_names
from sprintnet.errors import ArgumentError, SettingsError
from sprintnet.experiments.placement import HERE, Placement
from sprintnet.reporting.text import statistics, validation
from sprintnet.reporting.text.evaluation import chance_lines
from sprintnet.runs import folder
from sprintnet.runs.shards import shard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEDS = 10  # of a study for which no number is given
TEST_CAUTION = "these are metrics of the test set; to choose between settings, hold more images out and compare the split val"

CALIBRATION_CAUTION = f"{statistics.CALIBRATED}: the same images fitted the temperature, so it is optimistic"


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
    seeds: int | None = None,
    *,
    folds: int | None = None,
    jobs: int = 1,
    on: str = "",
    name: str = "",
    resume: bool = False,
    **settings: Any,
) -> Result:
    """Trains a recipe with several seeds (10), or on several folds, in runs/study/NAME; returns mean, standard deviation and
    interval of each metric.

    With `folds` each run holds another part of the training images out (cross-validation). `jobs` runs are trained at a time,
    each with its share of the cores, `on` this machine or a Ray cluster ("ray", "ray:ADDRESS"). Other arguments as in `train`;
    `details` are the metrics of each run.
    """
    if jobs < 1:
        raise ArgumentError("jobs", jobs, "must be at least 1")
    config, splits = configure(recipe, data, settings)
    plan = StudyPlan(config, seeds, folds, placement=Placement(0 if on and jobs == 1 else jobs, on))
    run = folder.new_run(name or folder.run_name(recipe), exact=bool(name), resume=resume, parent=folder.STUDY_FOLDER)
    return study_config(plan, run, splits)


@dataclass(frozen=True)
class StudyPlan:
    """A recipe with the seeds, or folds, that are trained, the part of them that this process takes, and where."""

    config: Config
    seeds: int | None = None
    folds: int | None = None
    shard: tuple[int, int] = (1, 1)
    placement: Placement = HERE

    def __post_init__(self) -> None:
        if self.seeds and self.folds:
            raise ArgumentError("folds", self.folds, "each fold is trained once, with the recipe's seed; leave out seeds")
        for argument, number in (("seeds", self.seeds), ("folds", self.folds)):
            if number is not None and number < 2:
                raise ArgumentError(argument, number, "a standard deviation needs two or more")
        if self.folds and self.config.data.fold:
            raise ArgumentError("folds", self.folds, f"data.fold={self.config.data.fold} is one of them; leave it out")
        self.placement.fix_runtime(self.config)  # refuses what the cores cannot do

    def __str__(self) -> str:
        whole = f"{self.folds} folds" if self.folds else f"{self.seeds or SEEDS} seeds"
        return whole if self.shard == (1, 1) else f"part {self.shard[0]} of {self.shard[1]} of {whole}"


def study_config(plan: StudyPlan, run: folder.RunFolder, splits: Splits | None = None) -> Result:
    """Returns the result of `study` for a plan, in the folder of a study."""
    from sprintnet.experiments.compare import summarise
    from sprintnet.experiments.study import fold_runs, run_study, seed_runs
    from sprintnet.experiments.study_runs import different_machines, fold_overlap, metric_values, out_of_fold

    planned = fold_runs(plan.config, plan.folds) if plan.folds else seed_runs(plan.config, plan.seeds or SEEDS)
    planned = dict(shard(planned.items(), *plan.shard))
    runs = []
    for metrics in run_study(plan.config, run, planned, plan.placement, splits):
        runs.append(metrics)
        print(f"{len(runs)} of {len(planned)}: {statistics.run_line(metric_values(runs))}", flush=True)
    if not runs:
        return Result((f"{run.path}: {plan} has no run",), runs, run.path)
    overlap = fold_overlap(run.path)
    summaries = {label: summarise(values, overlap) for label, values in metric_values(runs).items()}
    lines = [f"{run.path}: {len(runs)} runs", *statistics.summary_lines(summaries)]
    if plan.folds and plan.shard == (1, 1):
        lines += statistics.out_of_fold_lines(out_of_fold(run.path), plan.folds)
    if plan.shard != (1, 1):
        lines.append(f"these are {plan}; once all are finished, the same command without the shard shows all")
    lines += statistics.machine_lines(different_machines(run.path))
    cautions = [list(chance_lines(metrics[folder.evaluation_split(metrics)])) for metrics in runs]
    lines += cautions[-1] if all(cautions) else []
    if folder.evaluation_split(runs[0]) == "test":
        lines.append(TEST_CAUTION)
    elif statistics.CALIBRATED in summaries:
        lines.append(CALIBRATION_CAUTION)
    return Result(tuple(lines), runs, run.path)


@python_names()
def ensemble(study: "Result | str | Path", data: Any = None, *, name: str = "") -> Model:
    """Returns one model of a study's runs, which answers with the mean of their probabilities, in runs/train/NAME.

    `study` is a result of `study`, or its folder; `data` is what it was trained on, needed only where that is in memory. Raises
    SettingsError for fewer than two runs, and for runs of other data, classes or networks.
    """
    from sprintnet.experiments.ensemble import ensemble as make
    from sprintnet.reporting.text.evaluation import result_lines

    path = folder.find_run(study if isinstance(study, str | Path) else str(study.path), folder.STUDY_FOLDER)
    splits = configure("smoke", data, {})[1] if data is not None else None
    if splits is None and any(load_config(file).data.name == IN_MEMORY for file in path.glob("*/config.toml")):
        raise ArgumentError("data", data, "the runs' images were in memory; give them again: ensemble(study, data)")
    run = folder.new_run(name or f"{path.name}-ensemble", exact=bool(name), resume=False)
    try:
        result = make(path, run, splits)
    except SettingsError:
        with suppress(OSError):  # removed if it is empty
            run.path.rmdir()
        raise
    for line in result_lines(result.metrics, str(run.path)):
        run.log(line)
    return Model(result.model, run, splits)


@python_names()
def compare(a: "Result | str | Path", b: "Result | str | Path", *, split: str | None = None) -> Result:
    """Returns how study b differs from study a (results of `study` or folders): t-test and Hedges' g of each metric.

    The test is paired where both have the same images, and the same seeds or folds; times are not tested (NaN). `split`, val
    or test, defaults to the evaluation split of `a`, or else one that both have.
    """
    if split not in (None, "val", "test"):
        raise ArgumentError("split", split, "must be val or test, or None")
    return compare_folders(*(side.path if isinstance(side, Result) else side for side in (a, b)), split=split)


def compare_folders(*folders: str | Path, split: str | None = None) -> Result:
    """Returns the result of `compare` for the folders, or names, of two studies."""
    from sprintnet.experiments.compare import compare
    from sprintnet.experiments.study_runs import (
        changed_settings,
        data_digest,
        different_machines,
        fold_overlap,
        metric_values,
        pairs_by,
        read_runs,
    )  # fmt: skip

    runs = [read_runs(path) for path in folders]
    if len({folder.find_run(path, folder.STUDY_FOLDER).resolve() for path in folders}) == 1:
        raise SettingsError(f"{folders[0]}: is compared with itself; name two studies")
    common = [name for name in ("val", "test") if all(name in each[0] for each in runs)]
    if split is None:
        split = folder.evaluation_split(runs[0][0])
        split = common[0] if common and split not in common else split
    if lacking := [path for path, each in zip(folders, runs, strict=True) if split not in each[0]]:
        remedy = f"; both have {' and '.join(common)}" if common else ", and no split is common to both"
        raise ArgumentError("split", split, f"{lacking[0]} has no such metrics{remedy}")
    first, second = (metric_values(each, split) for each in runs)
    classes, others = (list(each[0][split]["classes"]) for each in runs)
    if classes != others:
        raise SettingsError(f"{' and '.join(map(str, folders))}: have different classes; compare studies with the same classes")
    overlaps, has_same_data = [fold_overlap(path) for path in folders], len({data_digest(path) for path in folders}) == 1
    is_paired = pairs_by(folders[0]) == pairs_by(folders[1]) and has_same_data
    if any(overlaps) and not is_paired:
        raise SettingsError(
            f"{' and '.join(map(str, folders))}: have different images or folds; compare the same images, --folds and seed"
        )
    overlap = overlaps[0]
    found = {
        label: compare(first[label], second[label], is_paired=is_paired, overlap=overlap) for label in first if label in second
    }
    if statistics.TIMES in found:
        found[statistics.TIMES] = replace(found[statistics.TIMES], low=math.nan, high=math.nan, p=math.nan, runs_needed=None)
    sides = [f"{side}: {path}, {len(each)} runs" for side, path, each in zip("AB", folders, runs, strict=True)]
    if not has_same_data:
        sides.append("caution: A and B have different data (images, labels or splits); this compares more than the recipes")
    sides += [f"other settings: {line}" for line in changed_settings(*folders)]
    sides += statistics.machine_lines(different_machines(*folders))
    if split == "test":
        sides.append(TEST_CAUTION)
    elif statistics.CALIBRATED in found:
        sides.append(CALIBRATION_CAUTION)
    return Result((*sides, *statistics.comparison_lines(found, is_paired, split, overlap)), found)


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
