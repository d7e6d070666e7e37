"""The figures of a run by name, from the files of its folder; the names follow Ultralytics."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sprintnet.errors import SettingsError, did_you_mean
from sprintnet.progress import track
from sprintnet.reporting.figures.curves import accuracy_over_time, lr_sweeps, penalty_curves, schedule_curves, training_curves
from sprintnet.reporting.figures.images import augmented, grad_cam, prediction_errors
from sprintnet.reporting.figures.network import network_diagram
from sprintnet.reporting.figures.predictions import (
    class_counts,
    class_scores,
    confusion_matrix,
    coverage,
    ranking_curves,
    reliability,
)
from sprintnet.reporting.figures.style import StyledFigure, save
from sprintnet.runs import folder
from sprintnet.runs.folder import RunFolder, evaluation_split, read_arrays, read_json, read_rows

IMAGE_FIGURES = ("train_batch0", "errors", "grad_cam", "grad_cam_files")
"""Figures made of images, smaller as JPEG than as SVG."""
WIDE_FIGURES = ("confusion_matrix", "confusion_matrix_normalized", "network", *IMAGE_FIGURES)
"""Figures that scroll on a phone."""
MAX_ERRORS_DRAWN = 32  # wrong predictions in the figure; the report's gallery has more

Figures = dict[str, Callable[..., StyledFigure]]


def figure(run: RunFolder, name: str) -> StyledFigure:
    """Returns a figure of a run by its name; raises SettingsError for one that is unknown, or whose data the run lacks."""
    return _find(run, name)()


def save_figure(run: RunFolder, name: str) -> Path:
    """Saves a figure in the run's plots folder and returns the path of its PNG; raises as `figure` does."""
    return _save(run, name, _find(run, name))


def save_figures(run: RunFolder) -> list[Path]:
    """Saves all figures in the run's plots folder; returns the paths of their PNGs."""
    drawn = figures(run)
    return [_save(run, name, draw) for name, draw in track(drawn.items(), len(drawn), "drawing figures")]


def _save(run: RunFolder, name: str, draw: Callable[..., StyledFigure]) -> Path:
    return save(draw, run.plots / name, for_phones=name not in WIDE_FIGURES)


def saved_figures(run: RunFolder) -> list[Path]:
    """Returns the paths of these PNGs, saved or not."""
    return [run.plots / f"{name}.png" for name in figures(run)]


def figures(run: RunFolder) -> Figures:
    """Returns the functions that draw the figures for which the run has data, by name; each takes the keyword `theme`."""
    found: Figures = {}
    metrics = read_json(run.metrics) if run.metrics.is_file() else {}
    artifacts = read_arrays(run.artifacts) if run.artifacts.is_file() else {}
    if run.results.is_file():
        rows, label, split = read_rows(run.results), run.path.resolve().name, "val" if "val" in metrics else "test"
        tta = {label: metrics[split]["tta"]} if "tta" in metrics.get(split, {}) else {}
        found["results"] = partial(training_curves, rows, folder.SPLIT_TITLES[split])
        found["accuracy_over_time"] = partial(accuracy_over_time, {label: rows}, None, tta)
    if run.head_fit.is_file():
        found["head_fit"] = partial(penalty_curves, read_json(run.head_fit))
    if run.lr_finder.is_file():
        found["lr_finder"] = partial(lr_sweeps, read_json(run.lr_finder)["sweeps"])
    if run.network.is_file():
        found["network"] = partial(network_diagram, read_json(run.network))
    if artifacts:
        classes = artifacts["classes"].tolist()
        curves = {"learning rate": artifacts["schedule_lr"].tolist(), "momentum": artifacts["schedule_momentum"].tolist()}
        counts = {key.removeprefix("counts_"): values for key, values in artifacts.items() if key.startswith("counts_")}
        names = [classes[label] for label in artifacts["original_labels"]]
        if len(artifacts["schedule_epoch"]):
            found["schedule"] = partial(schedule_curves, artifacts["schedule_epoch"].tolist(), curves)
        found["labels"] = partial(class_counts, counts, classes)
        found["train_batch0"] = partial(augmented, artifacts["originals"], list(artifacts["augmented"]), names)
    if metrics:
        found |= _metric_figures(metrics[evaluation_split(metrics)])
    if artifacts and len(artifacts["error_index"]) and run.predictions_csv.is_file():
        predictions = predictions_of(run, evaluation_split(metrics))
        rows = [predictions[index] for index in artifacts["error_index"][:MAX_ERRORS_DRAWN].tolist()]
        found["errors"] = partial(prediction_errors, artifacts["error_images"][:MAX_ERRORS_DRAWN], rows)
    return found | _map_figures(run)


def predictions_of(run: RunFolder, split: str) -> dict[int, dict[str, str]]:
    """Returns the rows of predictions.csv of a split, or of cross_validation, by index."""
    return {int(row["index"]): row for row in read_rows(run.predictions_csv) if row["split"] == split}


def _find(run: RunFolder, name: str) -> Callable[..., StyledFigure]:
    with folder.require_consistent(run):
        found = _map_figures(run) if name.startswith("grad_cam") else figures(run)  # explain needs no other file
    if name not in found:
        available = f"{', '.join(found) or 'none'}{did_you_mean(name, found)}"
        raise SettingsError(f"figure {name}: not available for {run.path}; available: {available}")
    return found[name]


def _metric_figures(metrics: dict[str, Any]) -> Figures:
    found: Figures = {}
    if "confusion" in metrics:
        matrix = partial(confusion_matrix, np.array(metrics["confusion"]), list(metrics["classes"]))
        found["confusion_matrix"] = partial(matrix, normalised=False)
        found["confusion_matrix_normalized"] = partial(matrix, normalised=True)
    if "curves" in metrics:
        found["roc_precision_recall"] = partial(ranking_curves, metrics["curves"])
    calibrations = {"As trained": "calibration", "Calibrated": "calibrated"}
    return found | {
        "class_scores": partial(class_scores, metrics["classes"]),
        "reliability": partial(
            reliability, {name: metrics[key] for name, key in calibrations.items() if key in metrics}, metrics["images"]
        ),
        "coverage": partial(coverage, metrics["coverage"]),
    }


def _map_figures(run: RunFolder) -> Figures:
    found: Figures = {}
    for name, path in (("grad_cam", run.explanations), ("grad_cam_files", run.file_explanations)):
        if path.is_file():
            arrays = read_arrays(path)
            maps = {key.removeprefix("map "): values for key, values in arrays.items() if key.startswith("map ")}
            found[name] = partial(grad_cam, arrays["images"], maps, json.loads(str(arrays["facts"]))["predictions"])
    return found
