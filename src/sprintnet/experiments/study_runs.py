"""The finished runs of a study: their metrics, and whether they can be averaged."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sprintnet.config import LEFT_TO_THE_MACHINE, Config, differences, load_config
from sprintnet.errors import SettingsError
from sprintnet.evaluation.task import TASKS
from sprintnet.reporting.text.task_scores import FEW_IMAGES
from sprintnet.runs.folder import STUDY_FOLDER, RunFolder, evaluation_split, find_run, read_arrays, read_json
from sprintnet.runs.shards import part_of

SHARED_BY_ALL_RUNS = ("code_sha256", "data_sha256", "precision")
"""What runs must have in common to be averaged, besides their settings; of folds, the images of all."""
SAID_OF_RUNS = ("torch", "device", "processor", "kernels", "threads")
"""What changes last digits and times of runs, which are averaged all the same, but not in silence."""
SAID_OF_STUDIES = (*SAID_OF_RUNS, "precision", "code_sha256")
"""What two studies that are compared may differ in, besides their settings."""

COMPARED_METRICS = {  # label -> keys in metrics.json; `evaluated` is the evaluation split
    "accuracy": ("evaluated", "accuracy"),
    "TTA accuracy": ("evaluated", "tta", "accuracy"),
    "mAP": ("evaluated", "mean_average_precision"),
    "cross-entropy": ("evaluated", "cross_entropy"),
    "ECE": ("evaluated", "calibration", "ece"),
    "ECE calibrated": ("evaluated", "calibrated", "ece"),
    "training seconds": ("train_seconds",),
}


def metric_values(runs: Sequence[dict[str, Any]], split: str | None = None) -> dict[str, list[float]]:
    """Returns the compared metrics of runs: label -> one value a run; a metric that any run lacks is left out, and so is a
    calibration error of few images.

    They are of the split, by default the evaluation split.
    """
    found = {}
    is_small = any(metrics[split or evaluation_split(metrics)]["images"] < FEW_IMAGES for metrics in runs)
    for label, path in COMPARED_METRICS.items():
        if path[-1] == "ece" and is_small:
            continue
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
    study = RunFolder(find_run(path, STUDY_FOLDER))
    if study.metrics.exists():
        raise SettingsError(f"{path}: is a run, not a study; name the folder of its study")
    runs = finished_runs(study.path)
    if len(runs) < 2:
        rule = "a standard deviation needs two or more: sprintnet study RECIPE --seeds 10 --resume"
        raise SettingsError(f"{path}: {len(runs)} finished runs; {rule}")
    return runs


def runs_of(path: str | Path) -> list[tuple[RunFolder, Config]]:
    """Returns the finished runs in a study's folder, or in any folder of run folders, with their settings, by seed and fold."""
    return _finished(find_run(path, STUDY_FOLDER))


def pairs_by(path: str | Path) -> list[tuple[int, str]]:
    """Returns seed and fold of each finished run in a study's folder, in the order of `read_runs`."""
    return [(config.seed, config.data.fold) for _, config in _finished(find_run(path, STUDY_FOLDER))]


def fold_overlap(path: str | Path) -> float:
    """Returns the overlap (see `summarise`) of the finished runs in a study's folder: 0 unless they are folds."""
    _, config = _finished(find_run(path, STUDY_FOLDER))[0]
    part = part_of(config.data.fold)
    return 1 / (part[1] - 1) if part else 0.0


def out_of_fold(path: str | Path) -> dict[str, float]:
    """Returns images, accuracy and cross-entropy over all folds in a study's folder: each image is judged by the network that
    was trained without it."""
    arrays = [read_arrays(run.predictions) for run, _ in _finished(find_run(path, STUDY_FOLDER))]
    logits, labels = (np.concatenate([each[f"val_{name}"] for each in arrays]) for name in ("logits", "labels"))
    task = TASKS["multi-label" if labels.ndim == 2 else "single-label"]
    accuracy, cross_entropy = task.accuracy(logits, labels), task.cross_entropy(logits, labels, 0.0)
    return {"images": len(labels), "accuracy": accuracy, "cross-entropy": cross_entropy}


def data_digest(path: str | Path) -> str:
    """Returns the SHA-256 of the data that the finished runs in a study's folder share."""
    digest: str = _facts(*_finished(find_run(path, STUDY_FOLDER))[0])["data_sha256"]
    return digest


def finished_runs(folder: Path) -> list[dict[str, Any]]:
    """Returns the metrics of a folder's finished runs, by seed and fold; raises SettingsError where they cannot be averaged."""
    runs = [(run, _facts(run, config), _shared(config)) for run, config in _finished(folder)]
    for run, environment, config in runs:
        if run.members.exists():
            raise SettingsError(f"{run.path}: is an ensemble, not a run of one network; move it away")
        first, facts, shared = runs[0]
        changed = [key for key in SHARED_BY_ALL_RUNS if environment.get(key) != facts.get(key)]
        if what := ", ".join([*changed, *differences(shared, config)]):
            rule = f"differs from {first.path} in {what}; they cannot be averaged; move one of them away"
            raise SettingsError(f"{run.path}: {rule}")
    return [read_json(run.metrics) for run, _, _ in runs]


def changed_settings(a: str | Path, b: str | Path) -> list[str]:
    """Returns a line, `key: a -> b`, for each setting that differs between two studies."""
    first, second = (_shared(_finished(find_run(path, STUDY_FOLDER))[0][1]) for path in (a, b))
    return differences(first, second)


def different_machines(*paths: str | Path) -> list[str]:
    """Returns what differs between the machines of the finished runs of studies, such as `processor: amx_bf16, avx2`."""
    facts = [_facts(*each) for path in paths for each in _finished(find_run(path, STUDY_FOLDER))]
    said = SAID_OF_RUNS if len(paths) == 1 else SAID_OF_STUDIES
    values = {key: dict.fromkeys(_text(one.get(key)) for one in facts) for key in said}
    return [f"{key}: {', '.join(found)}" for key, found in values.items() if len(found) > 1]


def _finished(folder: Path) -> list[tuple[RunFolder, Config]]:
    """Returns the finished runs in a folder with their settings, by seed and fold."""
    runs = [RunFolder(file.parent) for file in sorted(folder.glob("*/metrics.json"))]
    pairs = [(run, load_config(run.config)) for run in runs]
    return sorted(pairs, key=lambda pair: (pair[1].seed, part_of(pair[1].data.fold) or (0, 0)))


def _shared(config: Config) -> Config:
    """Returns the settings without what the runs of a study may differ in (threads and precision: see _facts)."""
    part = part_of(config.data.fold)
    return replace(config, seed=0, **LEFT_TO_THE_MACHINE, data=replace(config.data, fold=f"of {part[1]}" if part else ""))


def _facts(run: RunFolder, config: Config) -> dict[str, Any]:
    """Returns the record of a run's machine, code and data."""
    environment = read_json(run.environment)
    data = {}
    if config.data.fold:  # each run has other images; of images in memory no digest is kept
        data["data_sha256"] = read_json(run.data).get("folds_sha256") if run.data.exists() else None
    return {**environment, "torch": environment["versions"]["torch"], **data}


def _text(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
