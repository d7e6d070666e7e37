"""Likely label errors: labels that networks trained without the image disagree with."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from cleanlab.count import num_label_issues

from sprintnet.config import Config
from sprintnet.data.cross_validation import assign_folds, pooled
from sprintnet.data.dataset import ImageDataset, Labels, Rows, digest
from sprintnet.data.splits import Splits
from sprintnet.errors import ArgumentError, DataError, SettingsError
from sprintnet.evaluation.metrics import Floats, log_probabilities, top_k_accuracy
from sprintnet.experiments.placement import HERE, Placement
from sprintnet.experiments.study import fold_runs, train_all
from sprintnet.models.imagenet import IMAGENET
from sprintnet.runs.folder import RunFolder, read_arrays, read_json
from sprintnet.runs.io import write_arrays, write_rows

FOLDS = "label-errors"  # the folder of the folds' runs, in the run folder
MAX_IMAGES = 300  # images that are kept for the report, the likeliest errors first


@dataclass(frozen=True)
class LabelErrors:
    """Out-of-fold probabilities (N, K) and the quality (N,) of each label."""

    probabilities: Floats
    quality: Floats
    ranked: Rows
    """The likely errors (M,), worst first."""
    contradicted: Rows
    """All labels that the networks do not predict, worst first: those of `ranked`, and the doubtful ones after them."""
    accuracy: float  # share of the labels, 0..1, that the networks predict


def label_errors(
    config: Config,
    splits: Splits,
    run: RunFolder,
    folds: int = 5,
    resume: bool = False,
    placement: Placement = HERE,
) -> LabelErrors:
    """Returns the likely label errors among the images of `train` and, where one was held out, `val`.

    Each fold is a run of these settings in the run folder's label-errors (`fold-1`, ...), evaluated on its held-out images;
    with `resume` finished folds are read and an interrupted one continues; `placement` says where. Writes label_errors.csv (a
    row a contradicted label) and label_errors.npz (images (n, H, W, C) and rows of the first errors, with the totals, as JSON).
    Raises SettingsError for folds of other images or settings, DataError for a class of a single image, and what training
    raises.
    """
    parts: Splits = {name: splits[name] for name in ("train", "val") if name in splits}
    images = pooled(parts)
    logits = _out_of_fold_logits(config, images, run, folds, resume, placement)
    found = rank_errors(logits, images.labels)
    rows = _rows(found, images, parts)
    write_rows(run.label_errors.with_suffix(".csv"), rows)
    facts = {
        "images": len(images),
        "errors": len(found.ranked),
        "folds": folds,
        "accuracy": found.accuracy,
        "rows": rows[: min(len(found.ranked), MAX_IMAGES)],
    }
    write_arrays(run.label_errors, images=images.take(found.ranked[:MAX_IMAGES]).images, facts=json.dumps(facts))
    return found


def rank_errors(logits: Floats, labels: Labels) -> LabelErrors:
    """Returns which labels (N,) out-of-fold logits (N, K) contradict: as many as confident learning counts, worst first.

    A label's quality is its margin: its logit minus the largest other, negative where another class is likelier. Northcutt et
    al. 2021 (the count), Pleiss et al. 2020 (the margin).
    """
    # self-confidence finds more labels moved to any class, the normalised margin more of those moved to a similar class; the
    # margin of logits comes close to the better of them in either case
    probabilities = np.exp(log_probabilities(logits))
    others = logits.astype(np.float64)
    others[np.arange(len(labels)), labels] = -np.inf
    quality = logits[np.arange(len(labels)), labels] - others.max(axis=1)
    worst = np.argsort(quality, kind="stable")
    contradicted = worst[quality[worst] < 0]
    likely = contradicted[: num_label_issues(labels, probabilities)]
    return LabelErrors(probabilities, quality, likely, contradicted, top_k_accuracy(probabilities, labels, 1))


def _out_of_fold_logits(
    config: Config, images: ImageDataset, run: RunFolder, folds: int, resume: bool, placement: Placement
) -> Floats:
    """Returns logits (N, K) of each image from the network that was trained without its fold."""
    if images.multi_label:
        raise DataError("label-errors: the images have several labels each; only single-label datasets are supported")
    fold_of = assign_folds(images, folds)
    if config.init_from not in ("", IMAGENET):
        print(f"init_from={config.init_from}: if it has seen these images, it has learned their label errors", flush=True)
    folder = run.path / FOLDS
    if folder.exists() and not resume:
        raise SettingsError(f"{folder}: already holds folds; resume them, or remove the folder to start again")
    parts = [np.flatnonzero(fold_of == number) for number in range(folds)]
    splits = [
        {"train": images.take(np.flatnonzero(fold_of != number)), "val": images.take(parts[number])} for number in range(folds)
    ]
    runs = fold_runs(config, folds)
    for name, expected in zip(runs, splits, strict=True):
        _require_images(RunFolder(folder / name), expected, folds)
    logits = np.empty((len(images), len(images.classes)), np.float32)
    for number, metrics in enumerate(train_all(runs, folder, placement, splits)):
        fold = RunFolder(folder / f"fold-{number + 1}")
        _require_images(fold, splits[number], folds)
        predictions = read_arrays(fold.predictions)
        logits[parts[number]] = predictions.get("val_tta_logits", predictions["val_logits"])
        agreement = metrics["val"]["accuracy"]
        print(f"fold {number + 1} of {folds}: agrees with {agreement:.2%} of {len(parts[number]):,} labels", flush=True)
    return logits


def _require_images(fold: RunFolder, splits: Splits, folds: int) -> None:
    """Raises ArgumentError where a fold that has begun is of other images."""
    if fold.environment.exists() and read_json(fold.environment)["data_sha256"] != digest(*splits.values()):
        rule = f"{fold.path} has other images; resume with the number of folds at its start, or remove {fold.path.parent}"
        raise ArgumentError("folds", folds, rule)


def _rows(found: LabelErrors, images: ImageDataset, parts: Splits) -> list[dict[str, Any]]:
    """Returns a row for each contradicted label: rank, whether it is a likely error, split, index in it, file if known,
    classes, probabilities, quality."""
    places = [(name, index) for name, part in parts.items() for index in range(len(part))]
    rows = []
    for rank, image in enumerate(found.contradicted, 1):
        classes = {"given": images.labels[image], "suggested": found.probabilities[image].argmax()}
        rows.append(
            {
                "rank": rank,
                "likely": "yes" if rank <= len(found.ranked) else "no",
                **dict(zip(("split", "index"), places[image], strict=True)),
                **({"file": images.files[image]} if images.files else {}),
                **{name: images.classes[label] for name, label in classes.items()},
                **{f"{name}_probability": f"{found.probabilities[image, label]:.6f}" for name, label in classes.items()},
                "quality": f"{found.quality[image]:.6f}",
            }
        )
    return rows
