"""Splits of a dataset into train, val and test: stratified sampling, connected groups, the splits file."""

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

Splits = dict[str, ImageDataset]  # train, and val and test where they exist

SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {
    alias: aliases[0]
    for aliases in (("train", "training"), ("val", "valid", "validation", "dev"), ("test", "testing"))
    for alias in aliases
}
"""Name of a split in the data -> the split."""
SPLIT_SEED = 0  # seed of the splits, independent of the run's seed, so that the runs of a study share their data


def stratified_sample(
    labels: Labels, fraction: float, groups: Sequence[str] | None = None, seed: int = SPLIT_SEED, min_per_class: int = 0
) -> npt.NDArray[np.bool_]:
    """Returns which of N images are drawn (N,): `fraction` of each class, rounded, but at least `min_per_class` if it has more.

    Groups (N,), and multi-label images, are taken in random order, each if that brings the class counts nearer to the fraction.
    """
    generator = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    if groups is None and labels.ndim == 1:
        for label in range(int(labels.max(initial=-1)) + 1):
            members = np.flatnonzero(labels == label)
            count = max(round(fraction * len(members)), min_per_class if len(members) > min_per_class else 0)
            chosen[generator.permutation(members)[:count]] = True
        return chosen
    if labels.ndim == 2:  # images without a label count as a class
        labels = np.column_stack([labels, labels.sum(axis=1) == 0])
    group_of = np.arange(len(labels)) if groups is None else np.unique(np.array(groups), return_inverse=True)[1]
    members_of = np.split(np.argsort(group_of, kind="stable"), np.cumsum(np.bincount(group_of))[:-1])
    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max(initial=-1)) + 1
    total = class_counts(labels, classes)
    missing = np.maximum(fraction * total, np.where(total > min_per_class, min_per_class, 0))
    for group in generator.permutation(len(members_of)):
        left = missing - class_counts(labels[members_of[group]], classes)
        if (left**2).sum() < (missing**2).sum():
            chosen[members_of[group]], missing = True, left
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
    """Returns groups (N,) that connect given groups (empty: none) and the images of each pair; None if each image is alone."""
    parent = list(range(count))  # disjoint sets

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    first: dict[str, int] = {}
    same = [(index, first.setdefault(name, index)) for index, name in enumerate(groups or ()) if name]
    for a, b in [*same, *pairs]:
        parent[root(a)] = root(b)
    connected = [str(root(index)) for index in range(count)]
    return connected if len(set(connected)) < count else None


def groups_across_splits(groups: Sequence[str] | None, split: Sequence[str]) -> dict[str, list[str]]:
    """Returns the groups with images in several splits, and these splits."""
    splits_of: dict[str, set[str]] = {}
    for group, name in zip(groups or (), split, strict=False):
        if group and name:
            splits_of.setdefault(group, set()).add(name)
    return {group: sorted(names, key=SPLITS.index) for group, names in splits_of.items() if len(names) > 1}


def drop_duplicates(splits: Splits) -> tuple[Splits, dict[str, int]]:
    """Returns the splits without train images that are in val or test and val images that are in test, and their numbers."""
    kept, dropped = dict(splits), {}
    for name, later in (("train", ("val", "test")), ("val", ("test",))):
        pairs = [find_duplicates(kept[name], kept[other]) for other in later if {name, other} <= kept.keys()]
        if repeated := {pair.first for found in pairs for pair in found}:
            kept[name] = kept[name].take(
                np.array([index for index in range(len(kept[name])) if index not in repeated], np.int64)
            )
            dropped[name] = len(repeated)
    return kept, dropped


def write_splits(file: Path, splits: Splits) -> None:
    """Writes a row for each image: path (its index if it has no file), label, split and group; data.name can be this table."""
    rows: list[dict[str, str]] = []
    for name, part in splits.items():
        labels = [label or LABEL_SEPARATOR for label in label_text(part.labels, part.classes)]
        columns = {"path": _paths(part), "label": labels, "split": [name] * len(part)}
        if part.groups:
            columns["group"] = part.groups
        rows += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    write_rows(file, rows)


def read_splits(file: Path, images: ImageDataset) -> Splits:
    """Returns the splits in a file, of images that may have moved together; raises DataError if one is missing."""
    rows = read_rows(file)
    for line, row in enumerate(rows, 1):
        if "path" not in row or row.get("split") not in SPLITS:
            rule = f"path and split are needed, the split one of {', '.join(SPLITS)}"
            raise DataError(f"{file}, row {line:,}: {', '.join(f'{key}={value}' for key, value in row.items())}; {rule}")
    paths, wanted = _paths(images), [row["path"] for row in rows]
    if not set(wanted) <= set(paths):
        paths, wanted = _relative(paths), _relative(wanted)
    index_of = {path: index for index, path in enumerate(paths)}
    if missing := [path for path in wanted if path not in index_of]:
        others = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}{others}: in {file}, but no longer in the data; restore what the run was trained on")
    indices: Mapping[str, list[int]] = {name: [] for name in SPLITS}
    for row, path in zip(rows, wanted, strict=True):
        indices[row["split"]].append(index_of[path])
    return {name: images.take(np.array(chosen, np.int64)) for name, chosen in indices.items() if chosen}


def _paths(images: ImageDataset) -> Sequence[str]:
    return images.files or [str(row) for row in (range(len(images)) if images.rows is None else images.rows)]


def _relative(paths: Sequence[str]) -> list[str]:
    """Returns paths relative to the deepest folder that contains all."""
    folder = os.path.commonpath(paths) if paths else ""
    return [os.path.relpath(path, folder or os.curdir) for path in paths]
