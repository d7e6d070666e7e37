"""A study: one recipe trained with several seeds."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sprintnet.config import Config, require_same_settings
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.load import load_splits
from sprintnet.data.splits import Splits
from sprintnet.errors import ArgumentError, SettingsError
from sprintnet.experiments.compare import finished_runs, metric_values, summarise
from sprintnet.experiments.tasks import Task, divide_threads, finish_all
from sprintnet.runs.environment import environment_record
from sprintnet.runs.folder import RunFolder, read_json
from sprintnet.runs.io import write_atomic, write_json
from sprintnet.training.train import train


def run_study(
    config: Config, folder: RunFolder, seeds: int, splits: Splits | None = None, jobs: int = 1
) -> Iterator[dict[str, Any]]:
    """Trains one run for each seed (`seed-0`, ...) and yields its metrics; finished runs are read, an interrupted one resumes.

    With several `jobs`, as many runs are trained at a time, each by a process of its own with its share of the cores.
    study.json in the folder holds the summary of all finished runs. `splits` replace the data that the settings name. Raises
    SettingsError where the folder's study has other settings, or its runs come from other code, data or precision.
    """
    if jobs > 1:
        if splits:
            raise ArgumentError("jobs", jobs, "images in memory are for one process; save them as a file, or use 1 job")
        config = divide_threads(config, jobs)
    require_same_settings(folder.config, config)
    configs = {f"seed-{seed}": replace(config, seed=seed) for seed in range(config.seed, config.seed + seeds)}
    for metrics in _train_in_turn(configs, folder, splits) if jobs == 1 else _train_together(configs, folder, jobs):
        write_atomic(folder.config, config.to_toml())  # once a run has shown that the settings work
        finished = finished_runs(folder.path)
        if len(finished) > 1:
            summaries = {label: asdict(summarise(values)) for label, values in metric_values(finished).items()}
            write_json(folder.path / "study.json", summaries)
        yield metrics


def _train_in_turn(configs: dict[str, Config], folder: RunFolder, splits: Splits | None) -> Iterator[dict[str, Any]]:
    for number, (name, config) in enumerate(configs.items()):
        run = RunFolder(folder.path / name, is_quiet=number > 0)  # the header and epochs of one are enough
        if not run.metrics.exists():
            _require_same_code(folder.path)
            if splits is None and config.data.name in BUILTIN_DATASETS:
                splits = load_splits(config.data)  # once for all seeds
        yield train(config, run, resume=run.config.exists(), splits=splits).metrics


def _train_together(configs: dict[str, Config], folder: RunFolder, jobs: int) -> Iterator[dict[str, Any]]:
    if not all((folder.path / name / "metrics.json").exists() for name in configs):
        _require_same_code(folder.path)
    tasks = [Task(config.to_toml(), str(folder.path / name)) for name, config in configs.items()]
    for task in finish_all(tasks, jobs):
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
                "go back to that code, or start another study with --name"
            )
