"""Several runs side by side on one page; nothing is computed here that their folders do not hold."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sprintnet.errors import SettingsError
from sprintnet.reporting.figures.curves import accuracy_over_time
from sprintnet.reporting.figures.style import save
from sprintnet.reporting.html.page import embedded, render
from sprintnet.reporting.text.task_scores import score_texts
from sprintnet.runs.folder import RunFolder, dotted, evaluation_split, read_json, read_rows, require_consistent
from sprintnet.runs.io import write_atomic


def write_comparison(runs: Sequence[RunFolder], page: Path) -> None:
    """Writes a page with the figures of finished runs, the settings in which they differ, and their curves.

    Raises SettingsError for a run that is named twice, or for files that are missing or damaged.
    """
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise SettingsError(f"{' '.join(str(run.path) for run in runs)}: one run is named twice")
    names = [str(run.path) for run in runs]
    settings = [_settings(run) for run in runs]
    keys = dict.fromkeys(key for found in settings for key in found)
    by_setting = {key: [str(found.get(key, "-")) for found in settings] for key in keys}
    tables = [
        {"title": "Figures", "rows": _rows_of([_figures(run) for run in runs])},
        {
            "title": "Settings that differ",
            "rows": [_row(key, cells) for key, cells in by_setting.items() if len(set(cells)) > 1],
        },
    ]
    curves = {name: _curve(run) for name, run in zip(names, runs, strict=True)}
    with TemporaryDirectory() as folder:
        place = Path(folder) / "accuracy_over_time"
        save(partial(accuracy_over_time, curves, None), place)
        figures = {place.name: embedded(place)}
    contents = {
        "name": f"{len(runs)} runs",
        "subtitle": "",
        "runs": names,
        "tables": [table for table in tables if table["rows"]],
    }
    write_atomic(page, render("comparison.html.jinja", figures, **contents))


def _figures(run: RunFolder) -> dict[str, str]:
    metrics = read_json(run.metrics)
    with require_consistent(run):
        test = metrics[evaluation_split(metrics)]
        return {
            "accuracy": f"{test['accuracy']:.2%}",
            **score_texts(test),
            "with six views": f"{test['tta']['accuracy']:.2%}" if "tta" in test else "-",
            "cross-entropy": f"{test['cross_entropy']:.4f}",
            "calibration error": f"{test['calibration']['ece']:.2%}",
            "training": f"{metrics['train_seconds']:,.0f} s",
            "images/s": f"{metrics['images_per_second']:,.0f}",
            "parameters": f"{metrics['parameters']:,}",
        }


def _rows_of(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    labels = dict.fromkeys(label for run in runs for label in run)
    return [_row(label, [run.get(label, "-") for run in runs]) for label in labels]


def _curve(run: RunFolder) -> list[dict[str, float]]:
    rows = read_rows(run.results)
    with require_consistent(run):
        return [{key: float(row[key]) for key in ("train_seconds", "val_accuracy")} for row in rows]


def _settings(run: RunFolder) -> dict[str, Any]:
    try:
        return dotted(tomllib.loads(run.config.read_text("utf-8")))
    except ValueError as error:
        raise SettingsError(f"{run.config}: damaged ({error}); repeat the run") from None


def _row(label: str, cells: Sequence[Any]) -> dict[str, Any]:
    return {"label": label, "cells": cells}
