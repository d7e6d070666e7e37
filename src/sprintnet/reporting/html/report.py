"""A run folder becomes one self-contained page, report.html; nothing is computed here that the folder does not hold."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprintnet.data.dataset import LABEL_SEPARATOR
from sprintnet.reporting.figures.images import thumbnail
from sprintnet.reporting.figures.run_figures import draw, judged_predictions
from sprintnet.reporting.html.page import embedded, picture, render
from sprintnet.reporting.text.evaluation import missing_score
from sprintnet.reporting.text.names import UNLABELLED
from sprintnet.reporting.text.task_scores import CLASS_SCORES, Kind, kind_of, score_texts
from sprintnet.reporting.text.training_table import HEADS, table_cells
from sprintnet.runs.folder import (
    SPLIT_TITLES,
    RunFolder,
    evaluation_split,
    read_arrays,
    read_json,
    read_rows,
    require_consistent,
    rerun_command,
)
from sprintnet.runs.io import write_atomic

PAGE_BYTES = 4_700_000
"""For pictures; a page stays below 5 MB."""
FRAME_BYTES = 400
"""What a picture of the gallery takes besides itself."""
NOT_ON_THE_PAGE = ("confusion_matrix", "wrong", "grad_cam_files")
"""The page has its own table and gallery; files that a user named are no part of the run."""
SECTIONS = {
    "training": "Training",
    "errors": "Errors",
    "classes": "Classes",
    "calibration": "Calibration",
    "explanations": "Where it looks",
    "labels": "Likely label errors",
    "data": "Data and network",
    "reproduce": "Reproduce",
}


def write_report(run: RunFolder, page: Path | None = None) -> Path:
    """Draws a finished run's figures and writes its page (default: the folder's report.html); returns the page's place.

    Raises SettingsError for files that are missing, damaged or inconsistent files.
    """
    with require_consistent(run):
        contents = _contents(run)  # first, since a damaged file should not cost the drawing
        figures = {path.name: embedded(path) for path in draw(run) if path.name not in NOT_ON_THE_PAGE}
        room = PAGE_BYTES - sum(len(address) for addresses in figures.values() for address in addresses.values())
        label_errors = _label_errors(run, room // 2)
        room -= sum(len(entry["source"]) + FRAME_BYTES for entry in label_errors.get("pictures", ()))
        wrong = _wrong_answers(run, room)
    optional = {"explanations": "grad_cam" in figures, "labels": bool(label_errors)}
    shown = [{"id": key, "title": title} for key, title in SECTIONS.items() if optional.get(key, True)]
    text = render("report.html.jinja", figures, sections=shown, label_errors=label_errors, **contents, **wrong)
    write_atomic(page or run.report, text)
    return page or run.report


def _wrong_answers(run: RunFolder, room: int) -> dict[str, Any]:
    """Returns the gallery, as many pictures as fit into so many bytes, and the table of errors that opens them."""
    metrics = read_json(run.metrics)
    test = metrics[evaluation_split(metrics)]
    names = list(test["classes"])
    confusion = np.array(test["confusion"]) if "confusion" in test else None
    errors_of = _wrong_labels if confusion is None else _confused
    artifacts, predictions = read_arrays(run.artifacts), judged_predictions(run)
    captions = [_wrong_caption(predictions[index], names, errors_of) for index in artifacts["error_index"].tolist()]
    wrong = _gallery(artifacts["error_images"], captions, room)
    pictures = Counter(error for entry in wrong for error in entry["data"]["errors"].split(", "))
    return {
        "wrong": wrong,
        "confusion": None if confusion is None else _confusion(confusion, names, pictures),
        "missed_and_false": _missed_and_false(test["classes"], pictures) if confusion is None else [],
    }


def _label_errors(run: RunFolder, room: int) -> dict[str, Any]:
    """Returns what was found of label errors, with as many pictures as fit into so many bytes; empty where none were sought."""
    if not run.label_errors.is_file():
        return {}
    kept = read_arrays(run.label_errors)
    facts = json.loads(str(kept["facts"]))
    metrics = read_json(run.metrics)
    names = list(metrics[evaluation_split(metrics)]["classes"])
    pictures = _gallery(kept["images"], [_label_error_caption(row, names) for row in facts["rows"]], room)
    text = (
        f"Each image was judged by one of {facts['folds']} networks, trained without it; they gave {facts['accuracy']:.1%} of "
        f"the {facts['images']:,} images the class that their label says. {facts['errors']:,} labels are likely wrong; the "
        f"{len(pictures):,} worst are here, those whose suggested class is the most times as likely as the given one, and "
        "label_errors.csv has all. Look before you change one: the weaker the networks, the more right labels are among them."
    )
    return {"text": text, "pictures": pictures}


def _contents(run: RunFolder) -> dict[str, Any]:
    metrics, environment = read_json(run.metrics), read_json(run.environment)
    commit = (environment["commit"] or "unknown")[:10]
    test = metrics[evaluation_split(metrics)]
    network = read_json(run.network)
    return {
        "name": run.path.resolve().name,
        "subtitle": f"{environment['gpu'] or environment['cpu']}, {environment['precision']}; commit {commit}",
        "tiles": _tiles(metrics),
        "training": {"columns": HEADS, "rows": [table_cells(row) for row in read_rows(run.results)]},
        "errors": test["images"] - round(test["images"] * test["accuracy"]),
        "most_confused": test.get("most_confused"),
        "scores": [*CLASS_SCORES.values(), *kind_of(test).rankings.values()],
        "classes": [_class_row(name, row, kind_of(test)) for name, row in test["classes"].items()],
        "calibration_text": _calibration_text(test, metrics["temperature"]),
        "explanation": _explanation(run),
        "coverage": test["coverage"],
        "data_notes": read_json(run.data)["notes"] if run.data.is_file() else [],
        "network": {key: network[key] for key in ("layers", "parameters", "trainable")},
        "commit": environment["commit"],
        "command": rerun_command(run),
        "settings": (run.resolved if run.resolved.exists() else run.config).read_text("utf-8"),
        "environment": json.dumps(environment, indent=2),
    }


def _tiles(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    test = metrics[evaluation_split(metrics)]
    low, high = test["accuracy_interval"]
    tiles = [
        _tile(
            f"{SPLIT_TITLES[evaluation_split(metrics)]} {kind_of(test).accuracy}",
            f"{test['accuracy']:.2%}",
            f"95 % interval {low:.2%} to {high:.2%}",
        )
    ]
    if "mean_average_precision" in test:
        name, *others = score_texts(test).items()
        tiles.append(_tile(name[0], name[1], ", ".join(f"{label} {text}" for label, text in others)))
    if "tta" in test:
        again = test["tta"]
        tiles.append(_tile("with six views", f"{again['accuracy']:.2%}", f"{again['fraction']:.0%} asked again"))
    tiles.append(_tile("training", f"{metrics['train_seconds']:,.0f} s", f"{metrics['images_per_second']:,.0f} images/s"))
    tiles.append(
        _tile(
            "calibration error (ECE)",
            f"{test['calibration']['ece']:.2%}",
            f"{len(test['calibration']['reliability'])} bins of equal width",
        )
    )
    found = "the recipe's" if metrics["lr_finder_seconds"] is None else "found by a sweep"
    tiles.append(_tile("peak learning rate", f"{metrics['peak_lr']:.3g}", f"{found}; {metrics['epochs']} epochs"))
    return tiles


def _tile(label: str, value: str, note: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def _confusion(counts: NDArray[Any], names: Sequence[str], pictures: Mapping[str, int]) -> dict[str, Any]:
    """Returns the rows of the table; `pictures` counts those on the page by error."""
    largest = max(int((counts - np.diag(counts.diagonal())).max()), 1)
    rows = []
    for index, (name, line) in enumerate(zip(names, counts.tolist(), strict=True)):
        cells = [
            {
                "name": other,
                "count": count,
                "right": other == name,
                "share": 0 if other == name else round(count / largest, 3),
                "error": f"{index} as {column}",
                "pictures": pictures.get(f"{index} as {column}", 0),
            }
            for column, (other, count) in enumerate(zip(names, line, strict=True))
        ]
        rows.append({"name": name, "cells": cells})
    return {"names": names, "rows": rows}


def _confused(row: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Returns the one error of a wrong answer (a row of predictions.csv), as the page's cells name it."""
    return [f"{names.index(row['true'])} as {names.index(row['predicted'])}"]


def _wrong_labels(row: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Returns the labels that are missed or false in a wrong answer, as the page's cells name them."""
    true, said = ({names.index(name) for name in row[key].split(LABEL_SEPARATOR) if name} for key in ("true", "predicted"))
    return [f"missed {index}" for index in sorted(true - said)] + [f"false {index}" for index in sorted(said - true)]


def _answer(labels: str) -> str:
    """Returns a class, or several, with room to break the line between them."""
    return labels.replace(LABEL_SEPARATOR, f" {LABEL_SEPARATOR} ") or UNLABELLED


def _missed_and_false(classes: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, int]) -> list[dict[str, Any]]:
    """Returns a row a label: how many images miss it, and how many are falsely said to have it."""
    largest = max(1, *(row[kind] for row in classes.values() for kind in ("missed", "false")))
    return [
        {
            "name": name,
            "support": row["support"],
            "cells": [
                {
                    "name": kind,
                    "count": row[kind],
                    "share": round(row[kind] / largest, 3),
                    "error": f"{kind} {index}",
                    "pictures": pictures.get(f"{kind} {index}", 0),
                }
                for kind in ("missed", "false")
            ],
        }
        for index, (name, row) in enumerate(classes.items())
    ]


def _gallery(images: NDArray[np.uint8], captions: Sequence[Mapping[str, Any]], room: int) -> list[dict[str, Any]]:
    """Returns captions with their pictures in this order, as many as there is room for, in bytes."""
    gallery: list[dict[str, Any]] = []
    for image, caption in zip(images, captions, strict=True):
        source = picture(thumbnail(image))
        room -= len(source) + FRAME_BYTES
        if room < 0:
            break
        gallery.append({**caption, "source": source})
    return gallery


def _wrong_caption(
    row: Mapping[str, str], names: Sequence[str], errors_of: Callable[[Mapping[str, str], Sequence[str]], list[str]]
) -> dict[str, Any]:
    """Returns what stands under the picture of a row of predictions.csv, and what it is sorted and chosen by."""
    return {
        "label": _answer(row["true"]),
        "place": f"image {row['index']}",
        "lines": [f"said {_answer(row['predicted'])}, {float(row['confidence']):.0%}"],
        "data": {"errors": ", ".join(errors_of(row, names)), **{key: row[key] for key in ("confidence", "loss", "index")}},
    }


def _label_error_caption(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Returns the same of a row of label_errors.csv."""
    data = {key: names.index(row[key]) for key in ("given", "suggested")}
    given, suggested = float(row["given_probability"]), float(row["suggested_probability"])
    return {
        "label": row["given"],
        "place": row.get("file") or f"{row['split']} image {row['index']}",
        "lines": [f"{given:.1%}", f"→ {row['suggested']}, {suggested:.0%}", f"rank {row['rank']}"],
        "data": {**data, "quality": row["quality"], "confidence": suggested, "index": row["index"]},
    }


def _class_row(name: str, row: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    def shown(score: str) -> str:
        if score in kind.rankings:
            return "undefined" if row[score] is None else f"{row[score]:.1%}"
        if row[score] is None:
            return missing_score(row)
        low, high = row[f"{score}_interval"]
        return f"{row[score]:.1%} ({low:.1%} to {high:.1%})"

    return {"name": name, "support": f"{row['support']:,}", "scores": [shown(key) for key in (*CLASS_SCORES, *kind.rankings)]}


def _calibration_text(test: Mapping[str, Any], temperature: float | None) -> str:
    def shown(figures: Mapping[str, float]) -> str:
        errors = f"calibration error {figures['ece']:.2%} (bins of equal width), {figures['adaptive_ece']:.2%} (of equal count)"
        return f"NLL {figures['nll']:.4f}, Brier score {figures['brier']:.4f}, {errors}"

    pairs = "" if "confusion" in test else "Each class of each image counts. "
    text = f"{pairs}As trained: {shown(test['calibration'])}"
    if temperature is None:
        return f"{text}. No temperature: no training images were held out to fit it on, as data.val=0.1 would."
    after = test["calibration_at_temperature"]
    return f"{text}. At temperature {temperature:.3f}, fitted on held-out training images: {shown(after)}."


def _explanation(run: RunFolder) -> dict[str, str]:
    """Returns which class the maps are of, and how faithful they are."""
    if not run.explanations.is_file():
        return {"about": "", "text": ""}
    facts = json.loads(str(read_arrays(run.explanations)["facts"]))
    rows = [
        f"{name}: deletion {found['deletion']:.1%}, insertion {found['insertion']:.1%}"
        for name, found in facts["faithfulness"].items()
    ]
    text = (
        "Faithful maps find the pixels that matter: removing them first makes the class's probability fall early (deletion, "
        f"low is good), adding them first makes it rise early (insertion, high is good). {'; '.join(rows)}."
    )
    return {"about": facts["about"], "text": text}
