"""Which images are for training, for validation and for testing: drawn once, written down, read again."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sprintnet.data.dataset import LABEL_SEPARATOR, ImageDataset, Labels, class_counts, label_text
from sprintnet.data.duplicates import find_duplicates
from sprintnet.errors import DataError
from sprintnet.runs.folder import read_rows
from sprintnet.runs.io import write_rows

Splits = dict[str, ImageDataset]
"""The data of a run by name: train, and val and test where there are such."""

SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {
    alias: aliases[0]
    for aliases in (("train", "training"), ("val", "valid", "validation", "dev"), ("test", "testing"))
    for alias in aliases
}
"""What a split may be called in data -> the split."""
SPLIT_SEED = 0
"""Draws what is set aside: the same images in runs of other seeds, so that a study's runs share their data."""


def stratified_sample(
    labels: Labels, share: float, groups: Sequence[str] | None = None, seed: int = SPLIT_SEED, min_per_class: int = 0
) -> npt.NDArray[np.bool_]:
    """Returns which of N images are set aside (N,): the share of each class, rounded, but `least` of a larger one, by the seed.

    Images of one group of `groups` (N,) stay together. Groups, and images of several labels (N, K), come in an order drawn by
    the seed; each is set aside where that brings the labels nearer to their shares.
    """
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    if groups is None and labels.ndim == 1:
        for label in range(int(labels.max(initial=-1)) + 1):
            members = np.flatnonzero(labels == label)
            count = max(round(share * len(members)), min_per_class if len(members) > min_per_class else 0)
            chosen[generator.permutation(members)[:count]] = True
        return chosen
    if labels.ndim == 2:  # images without any label are to keep their share too
        labels = np.column_stack([labels, labels.sum(axis=1) == 0])
    unit = np.arange(len(labels)) if groups is None else np.unique(np.array(groups), return_inverse=True)[1]
    ends = np.cumsum(np.bincount(unit))
    images_of = np.split(np.argsort(unit, kind="stable"), ends[:-1])
    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1
    total = class_counts(labels, classes)
    missing = np.maximum(share * total, np.where(total > min_per_class, min_per_class, 0))
    for index in generator.permutation(len(images_of)):
        left = missing - class_counts(labels[images_of[index]], classes)
        if (left**2).sum() < (missing**2).sum():
            chosen[images_of[index]], missing = True, left
    return chosen


def stratified_k_fold(
    labels: Labels, folds: int, groups: Sequence[str] | None = None, seed: int = SPLIT_SEED
) -> npt.NDArray[np.int64]:
    """Returns the fold (0 to folds - 1) of each of N images, stratified by class."""
    fold_of = np.full(len(labels), folds - 1)
    left = np.arange(len(labels))
    for fold in range(folds - 1):
        chosen = stratified_sample(
            labels[left], 1 / (folds - fold), groups and [groups[index] for index in left.tolist()], seed
        )
        fold_of[left[chosen]] = fold
        left = left[~chosen]
    return fold_of


def connected_groups(count: int, groups: Sequence[str] | None, pairs: Iterable[tuple[int, int]]) -> Sequence[str] | None:
    """Returns groups (N,) that hold the given ones and both images of each pair together; None where each image is its own.

    A group without a name holds nothing together.
    """
    above = list(range(count))

    def root(index: int) -> int:
        while above[index] != index:
            above[index] = index = above[above[index]]
        return index

    first: dict[str, int] = {}
    same = [(index, first.setdefault(name, index)) for index, name in enumerate(groups or ()) if name]
    for a, b in [*same, *pairs]:
        above[root(a)] = root(b)
    found = [str(root(index)) for index in range(count)]
    return found if len(set(found)) < count else None


def groups_across_splits(groups: Sequence[str] | None, split: Sequence[str]) -> dict[str, list[str]]:
    """Returns the groups that have images in several splits, with these splits."""
    found: dict[str, set[str]] = {}
    for group, name in zip(groups or (), split, strict=False):
        if group and name:
            found.setdefault(group, set()).add(name)
    return {group: sorted(names, key=SPLITS.index) for group, names in found.items() if len(names) > 1}


def drop_duplicates(splits: Splits) -> tuple[Splits, dict[str, int]]:
    """Returns the splits without training images that are in val or test too, and val images that are in test; and how many."""
    found, left_out = dict(splits), {}
    for name, others in (("train", ("val", "test")), ("val", ("test",))):
        twice = {
            pair.first
            for other in others
            if other in found and name in found
            for pair in find_duplicates(found[name], found[other])
        }
        if twice:
            found[name] = found[name].take(
                np.array([index for index in range(len(found[name])) if index not in twice], np.int64)
            )
            left_out[name] = len(twice)
    return found, left_out


def write_splits(file: Path, splits: Splits) -> None:
    """Writes a row an image: path, label, split and, if it has one, group; a table that data.name can name.

    Images that come from no file of their own have their number for a path.
    """
    rows: list[dict[str, str]] = []
    for name, part in splits.items():
        places = part.files or [str(row) for row in (range(len(part)) if part.rows is None else part.rows)]
        labels = label_text(part.labels, part.classes)
        columns = {"path": places, "label": [label or LABEL_SEPARATOR for label in labels], "split": [name] * len(part)}
        if part.groups:
            columns["group"] = part.groups
        rows += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    write_rows(file, rows)


def read_splits(file: Path, whole: ImageDataset) -> Splits:
    """Returns the splits that a file names of a data set's images, which may have moved together; others are in none.

    Raises DataError where images that it names are not there, or it has been written in.
    """
    rows = read_rows(file)
    for line, row in enumerate(rows, 1):
        if "path" not in row or row.get("split") not in SPLITS:
            rule = f"path and split are needed, the split one of {', '.join(SPLITS)}"
            raise DataError(f"{file}, row {line:,}: {', '.join(f'{key}={value}' for key, value in row.items())}; {rule}")
    paths, wanted = whole.files or (), [row["path"] for row in rows]
    if not set(wanted) <= set(paths):
        paths, wanted = _within(paths), _within(wanted)
    number = {path: index for index, path in enumerate(paths)}
    if missing := [path for path in wanted if path not in number]:
        others = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}{others}: in {file}, but no longer in the data; restore what the run was trained on")
    named: Mapping[str, list[int]] = {name: [] for name in SPLITS}
    for row, path in zip(rows, wanted, strict=True):
        named[row["split"]].append(number[path])
    return {name: whole.take(np.array(indices, np.int64)) for name, indices in named.items() if indices}


def _within(paths: Sequence[str]) -> list[str]:
    """Returns paths from the folder on that all of them are in."""
    folder = os.path.commonpath(paths) if paths else ""
    return [os.path.relpath(path, folder) for path in paths]
