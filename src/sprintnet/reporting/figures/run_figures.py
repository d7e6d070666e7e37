"""All figures of a run, from its folder's files alone, under the names that users of Ultralytics know."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sprintnet.errors import SettingsError
from sprintnet.reporting.figures.curves import accuracy_over_time, lr_sweeps, schedule_curves, training_curves
from sprintnet.reporting.figures.images import augmented, grad_cam, prediction_errors
from sprintnet.reporting.figures.network import network_picture
from sprintnet.reporting.figures.predictions import class_counts, class_scores, confusion_matrix, coverage, reliability
from sprintnet.reporting.figures.style import save
from sprintnet.reporting.text.task_scores import kind_of
from sprintnet.runs.folder import RunFolder, evaluation_split, read_arrays, read_json, read_rows, require_consistent

MAX_ERRORS_SHOWN = 32
"""Wrong answers in the figure; the report's gallery has more."""


def draw(run: RunFolder) -> list[Path]:
    """Draws what the folder has files for into its plots folder; returns the figures' places, without suffix."""
    made = []
    for name, make in figures(run).items():
        save(make, run.plots / name)
        made.append(run.plots / name)
    return made


def draw_one(run: RunFolder, name: str) -> Path:
    """Draws one figure by its name; returns the picture's place. Raises SettingsError where the folder lacks what it needs."""
    with require_consistent(run):
        found = dict(_maps(run)) if name.startswith("grad_cam") else figures(run)
        if name in found:
            return save(found[name], run.plots / name)
    raise SettingsError(f"figure {name}: {run.path} has not what it needs; it has that of {', '.join(found) or 'none'}")


def figures(run: RunFolder) -> dict[str, Callable[[], Figure]]:
    """Returns, by name, how each figure is drawn for which the folder has what it needs."""
    found: dict[str, Callable[[], Figure]] = {}
    if run.results.is_file():
        rows = read_rows(run.results)
        metrics = read_json(run.metrics) if run.metrics.is_file() else {}
        val_name = "val" if "val" in metrics else "test"
        label, tta = run.path.resolve().name, metrics.get(val_name, {}).get("tta")
        tta_line = {label: tta} if tta else {}
        found["results"] = partial(training_curves, rows, "validation" if val_name == "val" else "test")
        found["accuracy_over_time"] = partial(accuracy_over_time, {label: rows}, None, tta_line)
    if run.lr_finder.is_file():
        found["lr_finder"] = partial(lr_sweeps, read_json(run.lr_finder)["sweeps"])
    if run.network.is_file():
        found["network"] = partial(network_picture, read_json(run.network))
    artifacts = read_arrays(run.artifacts) if run.artifacts.is_file() else {}
    classes = [str(name) for name in artifacts.get("classes", ())]
    if artifacts:
        curves = {"learning rate": artifacts["schedule_lr"].tolist(), "momentum": artifacts["schedule_momentum"].tolist()}
        found["schedule"] = partial(schedule_curves, artifacts["schedule_epoch"].tolist(), curves)
        counts = {
            key.removeprefix("counts_"): values.tolist() for key, values in artifacts.items() if key.startswith("counts_")
        }
        found["labels"] = partial(class_counts, counts, classes)
        shown = [classes[label] for label in artifacts["original_labels"]]
        found["train_batch0"] = partial(augmented, artifacts["originals"], list(artifacts["augmented"]), shown)
    if run.metrics.is_file():
        metrics = read_json(run.metrics)
        test = metrics[evaluation_split(metrics)]
        names = list(test["classes"])
        if "confusion" in test:
            confusion = np.array(test["confusion"])
            found["confusion_matrix"] = partial(confusion_matrix, confusion, names, normalised=False)
            found["confusion_matrix_normalized"] = partial(confusion_matrix, confusion, names, normalised=True)
        found["class_scores"] = partial(class_scores, test["classes"], kind_of(test).rankings)
        panels = {"as trained": test["calibration"]}
        if "calibration_at_temperature" in test:
            panels["at the fitted temperature"] = test["calibration_at_temperature"]
        found["reliability"] = partial(reliability, panels)
        found["coverage"] = partial(coverage, test["coverage"])
    if artifacts and len(artifacts["error_index"]) and run.predictions_csv.is_file():
        by_index = judged_predictions(run)
        shown_rows = [by_index[int(index)] for index in artifacts["error_index"][:MAX_ERRORS_SHOWN]]
        found["wrong"] = partial(prediction_errors, artifacts["error_images"][:MAX_ERRORS_SHOWN], shown_rows)
    return {**found, **dict(_maps(run))}


def _maps(run: RunFolder) -> Iterator[tuple[str, Callable[[], Figure]]]:
    for name, path in (("grad_cam", run.explanations), ("grad_cam_files", run.file_explanations)):
        if path.is_file():
            explained = read_arrays(path)
            maps = {key.removeprefix("map "): values for key, values in explained.items() if key.startswith("map ")}
            yield name, partial(grad_cam, explained["images"], maps, json.loads(str(explained["facts"]))["answers"])


def judged_predictions(run: RunFolder) -> dict[int, dict[str, str]]:
    """Returns the rows of predictions.csv about the images that judge the run, by index."""
    judged = evaluation_split(read_json(run.metrics))
    return {int(row["index"]): row for row in read_rows(run.predictions_csv) if row["split"] == judged}
