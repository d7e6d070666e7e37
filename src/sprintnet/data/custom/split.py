"""One's own pictures divided into training, validation and test images: as given, and drawn where nothing is."""

from collections.abc import Callable

import numpy as np

from sprintnet.data.custom.load import CustomData
from sprintnet.data.dataset import class_counts
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import SPLITS, Splits, connected_groups, groups_across_splits, stratified_sample
from sprintnet.errors import DataError, SettingsError

DEFAULT_VAL_FRACTION = 0.1
"""Share of one's own training images that is held out where neither they nor the settings say it; at least one a class."""


def assign_splits(own: CustomData, settings: DataSettings, log: Callable[[str], None]) -> Splits:
    """Returns train, val and, if there is one, test.

    What the data assign stays; a validation set is drawn where they have none, a test set where they assign nothing at all.
    Images of one group, and duplicates of each other, are drawn together.

    Raises SettingsError where nothing is left to draw.
    """
    split = np.array([name or "train" for name in own.split], dtype=object)
    pairs = [(pair.first, pair.second) for pair in own.duplicates()]
    together = connected_groups(len(split), own.images.groups, pairs)
    labels = own.images.labels

    def set_aside(name: str, share: float, remedy: str, least: int = 0) -> None:
        members = np.flatnonzero(split == "train")
        groups = together and [together[index] for index in members.tolist()]
        chosen = members[stratified_sample(labels[members], share, groups, least=least)]
        if share and not len(chosen):
            raise SettingsError(f"data.{name}={share:g}: less than one image a class; add images, or set {remedy}")
        split[chosen] = name

    if not any(own.split):
        set_aside("test", settings.test, "a larger share aside, or none (data.test=0)")
    if "val" not in own.split:  # never none: something has to judge the run
        set_aside(
            "val", settings.val or DEFAULT_VAL_FRACTION, "a larger share aside (at most 0.5)", least=0 if settings.val else 1
        )
    # of the same picture in several splits, that in the last of them counts
    order = np.array([SPLITS.index(name) for name in split])
    alike = np.unique(connected_groups(len(split), None, pairs) or np.arange(len(split)), return_inverse=True)[1]
    last = np.zeros(len(split), np.int64)
    np.maximum.at(last, alike, order)
    repeated = last[alike] > order
    for name in dict.fromkeys(split[repeated]):
        number = int((split[repeated] == name).sum())
        done = "left out (data.dedupe)" if settings.dedupe else "data.dedupe=true leaves them out"
        log(f"images of {name} that have duplicates in a later split: {number:,}; {done}")
    if settings.dedupe:
        split[repeated] = ""
    if torn := groups_across_splits(own.images.groups, split.tolist()):
        log(f"groups that the data put into several splits: {len(torn):,}; what one has learned of them shows in the others")
    if "test" not in split:
        log("no test set: the data bring none, and none is drawn")
    given, left, judging = (
        class_counts(part, len(own.images.classes)) for part in (labels, labels[split == "train"], labels[split == "val"])
    )
    lost = np.flatnonzero((given > 0) & (left == 0))
    if len(lost):
        names = ", ".join(own.images.classes[index] for index in lost)
        remedy = "leave data.dedupe out" if settings.dedupe else "set smaller shares aside (data.val, data.test)"
        raise DataError(f"data.name={settings.name}: no training image is left of {names}; add some, or {remedy}")
    if unjudged := [own.images.classes[index] for index in np.flatnonzero((given > 0) & (judging == 0))]:
        log(f"no validation image is of {', '.join(unjudged)}; figures say nothing about that")
    return {name: own.images.take(np.flatnonzero(split == name)) for name in SPLITS if (split == name).any()}
