"""One's own pictures divided into training, validation and test images: as given, and drawn where nothing is."""

from collections.abc import Callable

import numpy as np

from sprintnet.data.dataset import Labels
from sprintnet.data.own import OwnData
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import SPLITS, Splits, draw, joined
from sprintnet.errors import DataError, SettingsError

OWN_VAL = 0.1
"""Share of one's own training images that is held out where neither they nor the settings say it; at least one a class."""


def partition(own: OwnData, settings: DataSettings, log: Callable[[str], None]) -> Splits:
    """Returns train, val and, if there is one, test.

    What the data assign stays; a validation set is drawn where they have none, a test set where they assign nothing at all.
    Images of one group, and duplicates of each other, are drawn together. Raises SettingsError where nothing is left to draw.
    """
    split = np.array([name or "train" for name in own.split], dtype=object)
    pairs = [(pair.first, pair.second) for pair in own.duplicates()]
    together = joined(len(split), own.groups, pairs)
    labels = own.images.labels

    def set_aside(name: str, share: float) -> None:
        members = np.flatnonzero(split == "train")
        groups = together and [together[index] for index in members.tolist()]
        chosen = members[draw(labels[members], share, groups)]
        if share and not len(chosen):
            raise SettingsError(f"data.{name}={share:g}: less than one image a class; set a larger share aside")
        split[chosen] = name

    if not any(own.split):
        set_aside("test", settings.test)
    if "val" not in own.split:
        set_aside("val", settings.val or min(0.5, max(OWN_VAL, 1 / max(1, _smallest_class(labels[split == "train"])))))
    across = {tuple(sorted((split[a], split[b]), key=SPLITS.index)) for a, b in pairs if split[a] != split[b]}
    for one, other in sorted(across):
        number = len({pair for pair in pairs if {split[pair[0]], split[pair[1]]} == {one, other}})
        log(
            f"{number:,} pairs of an image in {one} and a duplicate of it in {other}; "
            f"data.dedupe=true leaves those of {one} out"
        )
    if settings.dedupe:
        dropped = {min(a, b, key=lambda index: SPLITS.index(split[index])) for a, b in pairs if split[a] != split[b]}
        split[list(dropped)] = ""
        log(f"{len(dropped):,} duplicates left out (data.dedupe)")
    if not (split == "train").any():
        raise DataError(f"data.name={settings.name}: no training image is left; add some, or leave data.dedupe out")
    return {name: own.images.take(np.flatnonzero(split == name)) for name in SPLITS if (split == name).any()}


def _smallest_class(labels: Labels) -> int:
    return int(
        labels.sum(axis=0).min() if labels.ndim == 2 else np.unique(labels, return_counts=True)[1].min(initial=len(labels))
    )
