"""The report of a run, one self-contained page; it shows what the files of the run folder hold and computes nothing."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprintnet.data.dataset import LABEL_SEPARATOR, label_text
from sprintnet.reporting.figures.images import thumbnail
from sprintnet.reporting.figures.run_figures import predictions_of, save_figures, saved_figures
from sprintnet.reporting.html.page import figure_uris, image_uri, render
from sprintnet.reporting.text.evaluation import calibration_text, gain_lines, head_fit_text, not_faithful, scored_text
from sprintnet.reporting.text.held_out import HEADS, coverage_spread_text, lowest_rate, set_rows, unknown_text
from sprintnet.reporting.text.methods import method_lines
from sprintnet.reporting.text.names import UNLABELLED
from sprintnet.reporting.text.task_scores import (
    FEW_IMAGES,
    accuracy_name,
    class_columns,
    overall_scores,
    ranking_columns,
    ranking_rows,
)
from sprintnet.reporting.text.training_table import HEADS as TRAINING_HEADS
from sprintnet.reporting.text.training_table import table_cells
from sprintnet.runs import folder
from sprintnet.runs.folder import RunFolder, evaluation_split, read_arrays, read_epochs, read_json
from sprintnet.runs.io import write_atomic

MAX_IMAGE_BYTES = 4_700_000  # of all images and figures; a page stays below 5 MB
CAPTION_BYTES = 400
MANY_EPOCHS = 40  # more rows are shown on request
OF_FOLDER = re.compile(r"<(title|h1)\b.*?</\1>|sprintnet (?:train|ensemble) [^<]*(?=</code>)", re.DOTALL)
"""What a page says of the folder that it was written in."""
OMITTED_FIGURES = ("confusion_matrix", "errors", "grad_cam_files")
"""The page has its own table and gallery; image files that a user named are not part of the run."""


def write_report(run: RunFolder, page: Path | None = None) -> Path:
    """Saves the figures of a finished run, writes its page (default: the folder's report.html) and returns the page's path.

    Raises SettingsError for files that are missing, damaged or inconsistent.
    """
    page = page or run.report
    with folder.require_consistent(run):
        contents = _contents(run)  # before the figures, which take longer
        write_atomic(page, _page(run, contents, save_figures(run)))
    return page


def unchanged_page(run: RunFolder) -> bool:
    """Returns whether report.html is what the run's files and saved figures give; the folder may have been moved."""
    with folder.require_consistent(run):
        now, then = _page(run, _contents(run), saved_figures(run)), run.report.read_text("utf-8")
    return OF_FOLDER.sub("", now) == OF_FOLDER.sub("", then)


def _page(run: RunFolder, contents: dict[str, Any], paths: Sequence[Path]) -> str:
    figures = {path.stem: figure_uris(path) for path in paths if path.stem not in OMITTED_FIGURES}
    budget = MAX_IMAGE_BYTES - sum(len(uri) for uris in figures.values() for uri in uris.values())
    label_errors = _label_errors(run, budget // 2)
    budget -= _bytes(label_errors.get("gallery", ()))
    contents |= {"label_errors": label_errors, "errors": {}, "image_counts": {}}
    for left, name in zip(range(len(contents["judged"]), 0, -1), contents["judged"], strict=True):
        errors = _errors(run, name, contents["classes"], budget // left)
        budget -= _bytes(errors)
        contents["errors"][name] = errors
        contents["image_counts"][name] = Counter(kind for image in errors for kind in image["errors"].split(", "))
    return render("report.html.jinja", figures, **contents)


def _contents(run: RunFolder) -> dict[str, Any]:
    metrics = read_json(run.metrics)
    split = evaluation_split(metrics)
    unknown = metrics[split].get("unknown")
    explained = json.loads(str(read_arrays(run.explanations)["facts"])) if run.explanations.is_file() else None
    return {
        "name": run.path.resolve().name,
        "metrics": metrics,
        "evaluated": metrics[split],
        "judged": [name for name in (split, "cross_validation") if name in metrics],
        "dataset": tomllib.loads(run.config.read_text("utf-8"))["data"]["name"],
        "split": split,
        "split_title": folder.SPLIT_TITLES[split],
        "many_epochs": MANY_EPOCHS,
        "few_images": FEW_IMAGES,
        "accuracy_title": f"{folder.SPLIT_TITLES[split]} {accuracy_name(metrics[split])}",
        "overall_scores": overall_scores(metrics[split]),
        "calibration": calibration_text(metrics),
        "set_columns": HEADS,
        "set_rows": set_rows(metrics[split]["sets"]) if "sets" in metrics[split] else [],
        "coverage_spread": coverage_spread_text(metrics[split]["sets"]) if "sets" in metrics[split] else "",
        "unknown": unknown_text(unknown) if unknown else "",
        "unknown_rate": f"{lowest_rate(unknown):g}" if unknown else "",
        "methods": list(method_lines(metrics, tomllib.loads(run.config.read_text("utf-8"))["tta"])),
        "class_columns": class_columns(metrics[split]),
        "ranking_columns": ranking_columns(metrics[split]) if "curves" in metrics[split] else [],
        "ranking_rows": ranking_rows(metrics[split]) if "curves" in metrics[split] else [],
        "classes": list(metrics[split]["classes"]),
        "training_columns": TRAINING_HEADS,
        "training_rows": [table_cells(row) for row in read_epochs(run)],
        "gain": list(gain_lines(metrics["ensemble"])) if "ensemble" in metrics else [],
        "head_fit": head_fit_text(read_json(run.head_fit)) if run.head_fit.is_file() else "",
        "explained": explained,
        "scored": scored_text(explained["scored"]) if explained and explained["scored"] else "",
        "not_faithful": not_faithful(explained["faithfulness"]) if explained else [],
        "data_notes": read_json(run.data)["notes"] if run.data.is_file() else [],
        "network": read_json(run.network),
        "environment": read_json(run.environment),
        "environment_text": run.environment.read_text("utf-8"),
        "command": folder.rerun_command(run),
        "settings": (run.resolved if run.resolved.exists() else run.config).read_text("utf-8"),
        "unlabelled": UNLABELLED,
    }


def _errors(run: RunFolder, name: str, classes: list[str], budget: int) -> list[dict[str, Any]]:
    """Returns the gallery of wrong predictions of a split, or of cross_validation, most confident first.

    Rows of predictions.csv with `errors` and `source`.
    """
    artifacts, predictions = read_arrays(run.artifacts), predictions_of(run, name)
    prefix = "" if name in folder.SPLIT_TITLES else f"{name}_"
    rows: list[dict[str, Any]] = [dict(predictions[index]) for index in artifacts[f"{prefix}error_index"].tolist()]
    rows = [{**row, "errors": ", ".join(_error_kinds(row, classes)), "name": Path(row.get("file") or "").name} for row in rows]
    if prefix:  # the nearest of the training images is the image itself
        return _gallery(artifacts[f"{prefix}error_images"], rows, budget)
    names = label_text(artifacts["nearest_labels"], classes)
    rows = [{**row, "nearest": name} for row, name in zip(rows, names, strict=True)]
    return _gallery(artifacts["error_images"], rows, budget, artifacts["nearest_images"])


def _error_kinds(row: Mapping[str, str], classes: list[str]) -> list[str]:
    """Returns the errors in a row of predictions.csv, as the cells of the page's table name them."""
    if "probabilities" not in row:  # single-label
        return [f"{classes.index(row['true'])} as {classes.index(row['predicted'])}"]
    true, predicted = (
        {classes.index(name) for name in row[key].split(LABEL_SEPARATOR) if name} for key in ("true", "predicted")
    )
    return [f"missed {index}" for index in sorted(true - predicted)] + [f"false {index}" for index in sorted(predicted - true)]


def _label_errors(run: RunFolder, budget: int) -> dict[str, Any]:
    """Returns the facts of the search for label errors and a gallery of the most likely ones; empty without a search."""
    if not run.label_errors.is_file():
        return {}
    found = read_arrays(run.label_errors)
    facts = json.loads(str(found["facts"]))
    return {**facts, "gallery": _gallery(found["images"], facts["rows"], budget)}


def _gallery(
    images: NDArray[np.uint8], rows: Sequence[Mapping[str, Any]], budget: int, nearest: NDArray[np.uint8] | None = None
) -> list[dict[str, Any]]:
    """Returns rows with the `source` of their image, and the `nearest_source` of the one beside it, if any, as many as fit into
    the budget of bytes."""
    gallery: list[dict[str, Any]] = []
    for index, row in enumerate(rows):
        sources = {"source": image_uri(thumbnail(images[index]))}
        if nearest is not None:
            sources["nearest_source"] = image_uri(thumbnail(nearest[index]))
        found = {**row, **sources}
        budget -= _bytes([found])
        if budget < 0:
            break
        gallery.append(found)
    return gallery


def _bytes(gallery: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(image["source"]) + len(image.get("nearest_source", "")) + CAPTION_BYTES for image in gallery)
