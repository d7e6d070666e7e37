"""A study: one recipe trained with several seeds, or on several folds of the data."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sprintnet.config import LEFT_TO_THE_MACHINE, Config, resumed
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.cross_validation import hold_out_fold, pooled
from sprintnet.data.load import load_splits
from sprintnet.data.splits import Splits
from sprintnet.errors import ArgumentError, SettingsError
from sprintnet.experiments.compare import summarise
from sprintnet.experiments.placement import HERE, Placement
from sprintnet.experiments.study_runs import finished_runs, fold_overlap, metric_values
from sprintnet.experiments.tasks import Task
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import RunFolder, read_json
from sprintnet.runs.io import write_atomic, write_json
from sprintnet.runs.shards import part_of
from sprintnet.training.train import train

Runs = dict[str, Config]
"""Name of the folder -> the settings that are trained in it."""


def seed_runs(config: Config, seeds: int) -> Runs:
    """Returns the runs of a study: `seed-0`, `seed-1`, ... from the recipe's seed upwards."""
    return {f"seed-{seed}": replace(config, seed=seed) for seed in range(config.seed, config.seed + seeds)}


def fold_runs(config: Config, folds: int) -> Runs:
    """Returns the runs of a cross-validation: `fold-1`, `fold-2`, ..., each evaluated on its fold and trained on the rest."""
    numbered = ((number, replace(config.data, fold=f"{number}/{folds}")) for number in range(1, folds + 1))
    return {f"fold-{number}": replace(config, data=data) for number, data in numbered}


def run_study(
    config: Config, folder: RunFolder, runs: Runs, placement: Placement = HERE, splits: Splits | None = None
) -> Iterator[dict[str, Any]]:
    """Trains the runs of a recipe in folders of their names and yields their metrics; finished ones are read, others resumed.

    study.json in the folder holds the summary of all finished runs, config.toml the recipe. `splits` replace the data that it
    names. Raises SettingsError where the folder's study has other settings, or its runs have other code, data or precision.
    """
    if splits and not placement.is_here:
        raise ArgumentError("jobs", placement.jobs, "images in memory are for one process; save them as a file, or use 1 job")
    config = placement.fix_runtime(resumed(folder.config, config))
    runs = {name: replace(run, **{key: getattr(config, key) for key in LEFT_TO_THE_MACHINE}) for name, run in runs.items()}
    if splits is None and config.data.name in BUILTIN_DATASETS and all(run.data == config.data for run in runs.values()):
        unfinished = [name for name in runs if not RunFolder(folder.path / name).metrics.exists()]
        splits = load_splits(config.data) if placement.is_here and unfinished else None  # once for all seeds
    each = [_splits_of(run, splits) for run in runs.values()] if splits else None
    for metrics in train_all(runs, folder.path, placement, each):
        write_atomic(folder.config, config.to_toml())  # once a run has shown that the settings work
        finished = finished_runs(folder.path)
        if len(finished) > 1:
            overlap = fold_overlap(folder.path)
            summaries = {label: asdict(summarise(values, overlap)) for label, values in metric_values(finished).items()}
            write_json(folder.path / "study.json", summaries)
        yield metrics


def _splits_of(config: Config, splits: Splits) -> Splits:
    """Returns the splits of a run: of a cross-validation, those of its fold."""
    part = part_of(config.data.fold)
    return hold_out_fold(pooled(splits), *part) if part else splits


def train_all(
    runs: Runs, folder: Path, placement: Placement, splits: Sequence[Splits] | None = None, *, is_quiet: bool = False
) -> Iterator[dict[str, Any]]:
    """Trains runs in folders of their names and yields their metrics in order; in this process, on these splits.

    Processes of their own read the data that the settings name. What the settings leave to the machine is as a run began, else
    as the placement has it. Raises as `run_study`.
    """
    runs = {name: placement.fix_runtime(resumed(RunFolder(folder / name).config, run)) for name, run in runs.items()}
    if not all(RunFolder(folder / name).metrics.exists() for name in runs):
        _require_same_code(folder)
    if placement.is_here:
        for number, (name, config) in enumerate(runs.items()):
            run = RunFolder(folder / name, is_quiet=is_quiet or number > 0)  # the header and epochs of one are enough
            yield train(config, run, resume=run.config.exists(), splits=splits[number] if splits else None).metrics
    else:
        tasks = [Task(config.to_toml(), str(folder / name)) for name, config in runs.items()]
        for task in placement.finish_all(tasks):
            yield read_json(RunFolder(Path(task.folder)).metrics)


def _require_same_code(folder: Path) -> None:
    """Raises SettingsError where a folder's finished runs come from other code than would train now."""
    now = environment_record()
    for file in folder.glob("*/metrics.json"):
        then = read_json(RunFolder(file.parent).environment)
        if then["code_sha256"] != now["code_sha256"]:
            raise SettingsError(
                f"{file.parent}: was trained by other code (commit {then['commit']}, now {now['commit']}; sprintnet "
                f"{then['versions']['sprintnet']}, now {now['versions']['sprintnet']}); runs of both cannot be averaged: "
                "go back to that code, or start again, a study with another --name"
            )
