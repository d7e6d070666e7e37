"""Splits of a custom dataset: given ones are kept, missing ones are drawn."""

from collections.abc import Callable

import numpy as np

from sprintnet.data.custom.load import CustomData
from sprintnet.data.dataset import class_counts
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import SPLITS, Splits, connected_groups, groups_across_splits, stratified_sample
from sprintnet.errors import DataError, SettingsError

DEFAULT_VAL_FRACTION = 0.1
"""Fraction of the training images held out for validation by default; at least one of each class."""
FEW_OF_A_CLASS = 5
"""Training images of a class below which the log names it, as hardly learnable."""


def assign_splits(data: CustomData, settings: DataSettings, log: Callable[[str], None]) -> Splits:
    """Returns train, val and, if there is one, test; of a dataset in memory: `assign_splits(CustomData(images), ...)`.

    Given splits are kept; val is drawn if it is missing, test only if no split is given. Images of one group, and duplicates,
    are drawn together. Raises SettingsError if a drawn split would be empty, DataError if a class loses all training images.
    """
    images, labels = data.images, data.images.labels
    given = data.split or ("",) * len(images)
    split = np.array([name or "train" for name in given], dtype=object)
    found = data.duplicates()
    pairs = [(pair.first, pair.second) for pair in found]
    groups = connected_groups(len(split), images.groups, pairs)

    def draw(name: str, fraction: float, remedy: str, min_per_class: int = 0) -> None:
        candidates = np.flatnonzero(split == "train")
        candidate_groups = groups and [groups[index] for index in candidates.tolist()]
        chosen = candidates[stratified_sample(labels[candidates], fraction, candidate_groups, min_per_class=min_per_class)]
        if fraction and not len(chosen):
            raise SettingsError(f"data.{name}={fraction:g}: less than one image per class; add images, or use {remedy}")
        split[chosen] = name

    if not any(given):
        draw("test", settings.test, "a larger fraction, or none (data.test=0)")
    if "val" not in given:  # always drawn: a run needs an evaluation split
        fraction, min_per_class = (DEFAULT_VAL_FRACTION, 1) if settings.val == "auto" else (settings.val, 0)
        if not fraction:
            raise SettingsError("data.val=0: no validation set is given, and a run needs one; use a fraction above 0, or auto")
        draw("val", fraction, "a larger fraction (at most 0.5)", min_per_class)
    contrary = [pair for pair in found if pair.is_exact and not np.array_equal(labels[pair.first], labels[pair.second])]
    if contrary:
        names = [images.files[index] if images.files else f"image {index}" for index in contrary[0][:2]]
        log(f"equal images under different labels: {len(contrary):,} pairs, such as {' and '.join(names)}")
    # of duplicates in several splits, the one in the last split is kept
    order = np.array([SPLITS.index(name) for name in split])
    duplicate_set = np.unique(connected_groups(len(split), None, pairs) or np.arange(len(split)), return_inverse=True)[1]
    last = np.zeros(len(split), np.int64)
    np.maximum.at(last, duplicate_set, order)
    repeated = last[duplicate_set] > order
    for name in dict.fromkeys(split[repeated]):
        count = int((split[repeated] == name).sum())
        action = "left out (data.dedupe)" if settings.dedupe else "data.dedupe=true leaves them out"
        log(f"{name} images with duplicates in a later split: {count:,}; {action}")
    if settings.dedupe:
        split[repeated] = ""
    if divided := groups_across_splits(images.groups, split.tolist()):
        log(f"groups with images in several splits: {len(divided):,}; accuracy may be too high")
    if "test" not in split:
        log("no test set: the data have none, and none is drawn")
    total, training, validation = (
        class_counts(part, len(images.classes)) for part in (labels, labels[split == "train"], labels[split == "val"])
    )
    if lost := [images.classes[index] for index in np.flatnonzero((total > 0) & (training == 0))]:
        remedy = "leave out data.dedupe" if settings.dedupe else "use smaller fractions (data.val, data.test)"
        raise DataError(f"data.name={settings.name}: no training image is left of {', '.join(lost)}; add some, or {remedy}")
    if few := [
        f"{images.classes[index]} ({training[index]})" for index in np.flatnonzero((total > 0) & (training < FEW_OF_A_CLASS))
    ]:
        log(f"classes with few training images, fewer than {FEW_OF_A_CLASS}: {', '.join(few)}")
    if unseen := [images.classes[index] for index in np.flatnonzero((total > 0) & (validation == 0))]:
        log(f"classes without a validation image: {', '.join(unseen)}; metrics say nothing about them")
    return {name: images.take(np.flatnonzero(split == name)) for name in SPLITS if (split == name).any()}
