"""Validation of a dataset before training: counts of its images, and all problems."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sprintnet.data.builtin.cache import load
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.custom.load import read_custom
from sprintnet.data.custom.manifest import Problem
from sprintnet.data.dataset import ImageDataset, class_counts
from sprintnet.data.duplicates import Duplicate, find_duplicates
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import groups_across_splits

MIN_CLASS_IMAGES = 10  # a class with fewer training images can hardly be learned
MAX_IMBALANCE = 10  # ratio of the largest to the smallest class above which imbalance is noted


@dataclass(frozen=True)
class Findings:
    """Numbers of images: by split; by split, then class; by size, mode and file format. And what was noticed."""

    classes: tuple[str, ...]
    images: Mapping[str, int]
    counts: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]


def check(settings: DataSettings) -> Findings:
    """Returns what is found in a dataset; raises DataError if it has no image that can be read."""
    if settings.name in BUILTIN_DATASETS:
        train, test = load(settings.name, settings.source)
        pairs = find_duplicates(train, test)
        duplicates = [_duplicate(pair, f"train {pair.first}", f"test {pair.second}", " across splits") for pair in pairs]
        return _findings({"train": train, "test": test}, duplicates)
    data = read_custom(settings)
    labels, files = data.images.labels, data.images.files or ()
    split = np.array([name or "undivided" for name in data.split], dtype=object)
    duplicates = []
    for pair in data.duplicates():
        i, j = pair.first, pair.second
        across = "" if split[i] == split[j] else " across splits"
        other_label = "" if np.array_equal(labels[i], labels[j]) else ", under another label"
        duplicates.append(_duplicate(pair, files[i], files[j] + other_label, across))
    groups = groups_across_splits(data.images.groups, data.split).items()
    divided = [Problem(group, "group across splits", f"has images in {', '.join(names)}", "note") for group, names in groups]
    parts = {name: data.images.take(np.flatnonzero(split == name)) for name in dict.fromkeys(split)}
    kinds = {
        "size": Counter(f"{header.width}x{header.height}" for header in data.headers),
        "mode": Counter(header.mode for header in data.headers),
        "format": Counter(header.format for header in data.headers),
    }
    return _findings(parts, [*divided, *duplicates], data.problems, data.notes, kinds)


def _duplicate(pair: Duplicate, image: str, other: str, across: str) -> Problem:
    kind, text = ("duplicate", "equals") if pair.is_exact else ("near duplicate", "looks like")
    return Problem(image, kind + across, f"{text} {other}", "note")


def _findings(
    parts: Mapping[str, ImageDataset],
    notes_on_images: Sequence[Problem],
    problems: Sequence[Problem] = (),
    notes: tuple[str, ...] = (),
    kinds: Mapping[str, Mapping[str, int]] | None = None,
) -> Findings:
    classes = next(iter(parts.values())).classes
    counts = {name: tuple(class_counts(part.labels, len(classes)).tolist()) for name, part in parts.items()}
    split = "train" if "train" in counts else "undivided"
    training = counts.get(split, ())
    class_notes = [
        Problem(name, "small class", f"has {count} {'training ' * (split == 'train')}images; add some", "note")
        for name, count in zip(classes, training, strict=False)
        if count < MIN_CLASS_IMAGES
    ]
    if training and max(training) > MAX_IMBALANCE * max(min(training), 1):
        ratio = f"the largest has {max(training) / max(min(training), 1):.0f} times the images of the smallest"
        text = f"{ratio}; class_weights=balanced or sampling=balanced may help"
        class_notes.append(Problem("classes", "imbalance", text, "note"))
    images = {name: len(part) for name, part in parts.items()}
    return Findings(classes, images, counts, kinds or {}, notes, (*problems, *class_notes, *notes_on_images))
