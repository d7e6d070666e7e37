"""Several runs on one page: metrics, settings that differ, accuracy over time."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sprintnet.errors import SettingsError
from sprintnet.reporting.figures.curves import accuracy_over_time
from sprintnet.reporting.figures.style import save
from sprintnet.reporting.html.page import figure_uris, render
from sprintnet.reporting.text.task_scores import accuracy_with_interval, calibration_error, overall_scores
from sprintnet.reporting.text.times import seconds_text
from sprintnet.runs.folder import SPLIT_TITLES, RunFolder, dotted, evaluation_split, read_epochs, read_json, require_consistent
from sprintnet.runs.io import write_atomic


def write_comparison(runs: Sequence[RunFolder], page: Path) -> None:
    """Writes the comparison page of finished runs.

    Raises SettingsError for a run that is named twice, and for files that are missing, damaged or inconsistent.
    """
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise SettingsError(f"{' '.join(str(run.path) for run in runs)}: one run is named twice; name different runs")
    metrics, settings, curves = [], [], {}
    for run in runs:
        with require_consistent(run):
            metrics.append(_metrics(read_json(run.metrics)))
            settings.append(dotted(tomllib.loads((run.resolved if run.resolved.exists() else run.config).read_text("utf-8"))))
            if not (rows := read_epochs(run)):
                continue
            curves[str(run.path)] = [{key: float(row[key]) for key in ("train_seconds", "val_accuracy")} for row in rows]
    different = {key: cells for key, cells in _by_row(settings).items() if len(set(cells)) > 1}
    tables = {"Metrics": _by_row(metrics), "Settings that differ": different}
    figures = {}
    with TemporaryDirectory() as temporary:
        if curves:
            file = save(partial(accuracy_over_time, curves, None), Path(temporary) / "accuracy_over_time", for_phones=True)
            figures[file.stem] = figure_uris(file)
    write_atomic(
        page,
        render("comparison.html.jinja", figures, name=f"{len(runs)} runs", runs=[str(run.path) for run in runs], tables=tables),
    )


def _by_row(columns: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Returns the cells of each row, from the cells of each run by row."""
    return {key: [str(column.get(key, "-")) for column in columns] for column in columns for key in column}


def _metrics(metrics: Mapping[str, Any]) -> dict[str, str]:
    split = evaluation_split(metrics)
    evaluated = metrics[split]
    error = evaluated.get("calibrated", evaluated["calibration"])["ece"]
    return {
        "evaluated on": f"{evaluated['images']:,} {SPLIT_TITLES[split]} images",
        "accuracy": accuracy_with_interval(evaluated),
        **({"TTA accuracy": accuracy_with_interval(evaluated["tta"])} if "tta" in evaluated else {}),
        **overall_scores(evaluated),
        "cross-entropy": f"{evaluated['cross_entropy']:.4f}",
        "calibration error (ECE)": calibration_error(error, evaluated["images"]),
        "training time": seconds_text(metrics["train_seconds"]),
        "images/s": f"{metrics['images_per_second']:,.0f}" if metrics["images_per_second"] else "-",
        "parameters": f"{metrics['parameters']:,}",
    }
