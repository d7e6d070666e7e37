"""Cross-validation: the folds of a dataset, by class, with groups and duplicates together."""

import numpy as np

from sprintnet.data.dataset import ImageDataset, Rows, concatenate
from sprintnet.data.duplicates import duplicates_within
from sprintnet.data.splits import Splits, connected_groups, stratified_k_fold
from sprintnet.errors import ArgumentError, DataError


def pooled(splits: Splits) -> ImageDataset:
    """Returns the images of train and, where it exists, val."""
    return concatenate(*(splits[name] for name in ("train", "val") if name in splits))


def hold_out_fold(images: ImageDataset, fold: int, folds: int) -> Splits:
    """Returns fold number `fold` (1 to `folds`) as val, the rest as train; raises as `assign_folds`."""
    fold_of = assign_folds(images, folds)
    return {"train": images.take(np.flatnonzero(fold_of != fold - 1)), "val": images.take(np.flatnonzero(fold_of == fold - 1))}


def assign_folds(images: ImageDataset, folds: int) -> Rows:
    """Returns the fold (N,), from 0, of each image. Images of one group, and duplicates, have the same.

    Raises ArgumentError for more folds than the images can fill, DataError for a class that only one fold would have.
    """
    if not 2 <= folds <= len(images):
        raise ArgumentError("folds", folds, f"must be from 2 to the number of images, {len(images):,}")
    if not images.multi_label:
        counts = np.bincount(images.labels, minlength=len(images.classes))
        if single := [images.classes[label] for label in np.flatnonzero(counts == 1)]:
            raise DataError(f"only one image of {', '.join(single)}: no other image to judge it by; add images of the class")
    pairs = [(pair.first, pair.second) for pair in duplicates_within(images)]
    fold_of = stratified_k_fold(images.labels, folds, connected_groups(len(images), images.groups, pairs))
    if len(np.unique(fold_of)) < folds:
        raise ArgumentError("folds", folds, f"too many for {len(images):,} images of {len(images.classes)} classes; use fewer")
    has = images.labels.T > 0 if images.multi_label else images.labels == np.arange(len(images.classes))[:, None]
    if together := [name for name, row in zip(images.classes, has, strict=True) if len(np.unique(fold_of[row])) == 1]:
        cause = f"all images of {', '.join(together)} belong together (a group, or duplicates)"
        raise DataError(f"{cause}: no network that has learned the class could judge them; add other images")
    return fold_of
