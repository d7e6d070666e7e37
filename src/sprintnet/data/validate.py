"""What is known of a data set before anybody trains on it: its pictures, classes, splits, duplicates, and all that is wrong."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sprintnet.data.builtin.cache import load
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.custom.load import read_custom
from sprintnet.data.custom.manifest import Problem
from sprintnet.data.dataset import ImageDataset, class_counts
from sprintnet.data.duplicates import find_duplicates
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import groups_across_splits

MIN_CLASS_IMAGES = 10
"""Training images of a class: with fewer it is hardly learned."""
MAX_IMBALANCE = 10
"""Times as many images in the largest class as in the smallest."""


@dataclass(frozen=True)
class Findings:
    """What there is (images by split; by split, then class; by size, mode and file format) and what is wrong."""

    classes: tuple[str, ...]
    images: Mapping[str, int]
    counts: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]


def check(settings: DataSettings) -> Findings:
    """Returns what is found in a data set; raises DataError where it holds nothing that can be read."""
    if settings.name in BUILTIN_DATASETS:
        train, test = load(settings.name, settings.source)
        parts = {"train": train, "test": test}
        across = []
        for pair in find_duplicates(train, test):
            kind = f"{_kind(pair.is_exact)} across splits"
            across.append(Problem(f"train {pair.first}", kind, f"the same picture as test {pair.second}", "note"))
        return Findings(
            train.classes, _images(parts), _counts(parts), {}, (), (*across, *_class_problems(train.classes, _counts(parts)))
        )
    own = read_custom(settings)
    split = np.array([name or "undivided" for name in own.split], dtype=object)
    parts = {name: own.images.take(np.flatnonzero(split == name)) for name in dict.fromkeys(split)}
    files = own.images.files or tuple(map(str, range(len(own.images))))
    twice = [
        Problem(
            files[pair.first],
            _kind(pair.is_exact) + ("" if split[pair.first] == split[pair.second] else " across splits"),
            f"the same picture as {files[pair.second]}{_other_label(own.images, pair.first, pair.second)}",
            "note",
        )
        for pair in own.duplicates()
    ]
    kinds = {
        "size": Counter(f"{header.width}x{header.height}" for header in own.headers),
        "mode": Counter(header.mode for header in own.headers),
        "format": Counter(header.format for header in own.headers),
    }
    torn = [
        Problem(group, "group across splits", f"has images in {', '.join(names)}", "note")
        for group, names in groups_across_splits(own.images.groups, own.split).items()
    ]
    problems = (*own.problems, *_class_problems(own.images.classes, _counts(parts)), *torn, *twice)
    return Findings(own.images.classes, _images(parts), _counts(parts), kinds, own.notes, problems)


def _kind(is_exact: bool) -> str:
    return "duplicate" if is_exact else "near duplicate"


def _other_label(images: ImageDataset, first: int, second: int) -> str:
    return "" if np.array_equal(images.labels[first], images.labels[second]) else ", under another label"


def _images(parts: Mapping[str, ImageDataset]) -> dict[str, int]:
    return {name: len(part) for name, part in parts.items()}


def _counts(parts: Mapping[str, ImageDataset]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(class_counts(part.labels, len(part.classes)).tolist()) for name, part in parts.items()}


def _class_problems(classes: tuple[str, ...], counts: Mapping[str, tuple[int, ...]]) -> list[Problem]:
    training = counts.get("train") or counts.get("undivided") or ()
    kind = "training image" if "train" in counts else "image"
    found = [
        Problem(name, "small class", f"has {count} {kind}{'s' if count != 1 else ''}; add some", "note")
        for name, count in zip(classes, training, strict=False)
        if count < MIN_CLASS_IMAGES
    ]
    if training and max(training) > MAX_IMBALANCE * max(min(training), 1):
        ratio = max(training) / max(min(training), 1)
        text = (
            f"the largest has {ratio:.0f} times as many as the smallest; class_weights=balanced or sampling=balanced may help"
        )
        found.append(Problem("classes", "imbalance", text, "note"))
    return found
