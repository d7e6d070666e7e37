"""Likely label errors: networks trained without an image doubt its label."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from cleanlab.count import num_label_issues

from sprintnet.config import Config
from sprintnet.data.dataset import ImageDataset, Labels, Rows, concatenate, digest
from sprintnet.data.duplicates import duplicates_within
from sprintnet.data.splits import Splits, connected_groups, stratified_k_fold
from sprintnet.errors import DataError, SettingsError
from sprintnet.evaluation.metrics import Floats, log_probabilities, top_k_accuracy
from sprintnet.runs.folder import RunFolder, read_arrays, read_json
from sprintnet.runs.io import write_arrays, write_rows
from sprintnet.training.train import train

FOLDS = "label-errors"
"""The folder of the folds' runs, in the run folder."""
MAX_IMAGES = 300
"""Pictures that are kept for the report, the likeliest errors first."""


@dataclass(frozen=True)
class LabelErrors:
    """Out-of-fold probabilities (N, K), the quality (N,) of each label, and the likely wrong ones (M,), the worst first."""

    probabilities: Floats
    quality: Floats
    ranked: Rows


def label_errors(config: Config, splits: Splits, run: RunFolder, folds: int = 5, resume: bool = False) -> LabelErrors:
    """Returns the likely label errors among the images of `train` and, where one was held out, `val`.

    Each fold is an ordinary run of these settings in the run folder's label-errors (`fold-1`, ...), judged on the images that
    it has not seen; with `resume` finished ones are read, a cut one goes on. label_errors.csv has a row an error,
    label_errors.npz images (n, H, W, C) and rows of the first, with facts about all, as JSON. Raises SettingsError for folds of
    other images or settings, DataError for a class of a single image, and what training raises.
    """
    parts: Splits = {name: splits[name] for name in ("train", "val") if name in splits}
    images = concatenate(*parts.values())
    logits = _out_of_fold(config, images, run, folds, resume)
    found = judge(logits, images.labels)
    rows = _rows(found, images, parts)
    write_rows(run.label_errors.with_suffix(".csv"), rows)
    facts = {
        "images": len(images),
        "errors": len(rows),
        "folds": folds,
        "accuracy": top_k_accuracy(found.probabilities, images.labels, 1),
        "rows": rows[:MAX_IMAGES],
    }
    write_arrays(run.label_errors, images=images.take(found.ranked[:MAX_IMAGES]).images, facts=json.dumps(facts))
    return found


def judge(logits: Floats, labels: Labels) -> LabelErrors:
    """Returns which labels (N,) out-of-fold logits (N, K) doubt: as many as confident learning counts, the worst first.

    A label's quality is its margin: its logit less the largest other, below 0 where another class is likelier. Northcutt et al.
    2021 (the count), Pleiss et al. 2020 (the margin).
    """
    # the probability of the given class finds more labels moved to any class, the difference of probabilities more of those
    # moved to a similar one; this margin comes close to the better of them in either case
    probabilities = np.exp(log_probabilities(logits))
    others = logits.astype(np.float64)
    others[np.arange(len(labels)), labels] = -np.inf
    quality = logits[np.arange(len(labels)), labels] - others.max(axis=1)
    worst = np.argsort(quality, kind="stable")[: num_label_issues(labels, probabilities)]
    return LabelErrors(probabilities, quality, worst[quality[worst] < 0])


def _out_of_fold(config: Config, images: ImageDataset, run: RunFolder, folds: int, resume: bool) -> Floats:
    """Returns logits (N, K) of each image by a network that was trained without its fold."""
    fold_of = _deal(images, folds)
    if config.init_from:
        print(
            f"init_from={config.init_from}: if that network has seen these images, it has learned their wrong labels too",
            flush=True,
        )
    place = run.path / FOLDS
    if place.exists() and not resume:
        raise SettingsError(f"{place}: holds folds already; go on with them by --resume, or remove it to begin again")
    logits = np.empty((len(images), len(images.classes)), np.float32)
    for number in range(1, folds + 1):
        asked = np.flatnonzero(fold_of == number - 1)
        splits = {"train": images.take(np.flatnonzero(fold_of != number - 1)), "val": images.take(asked)}
        fold = RunFolder(place / f"fold-{number}")
        _refuse_other_images(fold, splits, folds)
        metrics = train(config, fold, resume=fold.config.exists(), splits=splits).metrics
        predictions = read_arrays(fold.predictions)
        logits[asked] = predictions.get("val_tta_logits", predictions["val_logits"])
        agreed = metrics["val"]["accuracy"]
        print(f"fold {number} of {folds}: the network agrees with {agreed:.2%} of {len(asked):,} labels", flush=True)
    return logits


def _deal(images: ImageDataset, folds: int) -> Rows:
    """Returns the fold (N,) of each image; groups and duplicates stay together: a wrong label once learned seems right."""
    if images.multi_label:
        raise DataError("label-errors: the images have several labels each; likely errors are sought where each has one")
    counts = np.bincount(images.labels, minlength=len(images.classes))
    if lone := [images.classes[label] for label in np.flatnonzero(counts == 1)]:
        raise DataError(f"one image alone in {', '.join(lone)}: nothing is left to judge its label by; add images of the class")
    if not 2 <= folds <= len(images):
        raise SettingsError(f"--folds {folds}: must be from 2 to the number of images, {len(images):,}")
    pairs = [(pair.first, pair.second) for pair in duplicates_within(images)]
    fold_of = stratified_k_fold(images.labels, folds, connected_groups(len(images), images.groups, pairs))
    if len(np.unique(fold_of)) < folds:
        raise SettingsError(f"--folds {folds}: too many for {len(images):,} images of {len(images.classes)} classes; use fewer")
    together = [name for label, name in enumerate(images.classes) if len(np.unique(fold_of[images.labels == label])) == 1]
    if together:
        cause = f"all images of {', '.join(together)} belong together (a group, or duplicates)"
        raise DataError(f"{cause}: no network that has learned the class could judge them; add others")
    return fold_of


def _refuse_other_images(fold: RunFolder, splits: Splits, folds: int) -> None:
    """Raises SettingsError where a fold was begun with other images: another number of folds deals them out otherwise."""
    if fold.environment.exists() and read_json(fold.environment)["data_sha256"] != digest(*splits.values()):
        raise SettingsError(
            f"--folds {folds}: {fold.path} has other images; resume with as many folds as it was begun with, or remove "
            f"{fold.path.parent} to begin again"
        )


def _rows(found: LabelErrors, images: ImageDataset, parts: Splits) -> list[dict[str, Any]]:
    """Returns a row a likely error: rank, split, index there, file if known, classes, their probabilities, quality."""
    places = [(name, index) for name, part in parts.items() for index in range(len(part))]
    suggested = found.probabilities.argmax(axis=1)
    return [
        {
            "rank": rank,
            "split": places[image][0],
            "index": places[image][1],
            **({"file": images.files[image]} if images.files else {}),
            "given": images.classes[images.labels[image]],
            "suggested": images.classes[suggested[image]],
            "given_probability": f"{found.probabilities[image, images.labels[image]]:.6f}",
            "suggested_probability": f"{found.probabilities[image, suggested[image]]:.6f}",
            "quality": f"{found.quality[image]:.6f}",
        }
        for rank, image in enumerate(found.ranked, 1)
    ]
