"""Validation of a dataset before training: counts of its images, and all problems."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sprintnet.data.builtin.cache import load
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.custom.load import read_custom
from sprintnet.data.custom.manifest import Problem
from sprintnet.data.dataset import ImageDataset, Images, class_counts
from sprintnet.data.duplicates import Duplicate, find_duplicates
from sprintnet.data.settings import DataSettings
from sprintnet.data.splits import groups_across_splits

MIN_CLASS_IMAGES = 10  # a class with fewer training images can hardly be learned
MAX_NEAR = 48  # pairs of near duplicates that are kept to be drawn
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
    near: tuple[tuple[Images, Images, str], ...] = ()
    """The near duplicates that are the least alike: both images (H, W, C) and what they are called."""


def check(settings: DataSettings) -> Findings:
    """Returns what is found in a dataset; raises DataError if it has no image that can be read."""
    if settings.name in BUILTIN_DATASETS:
        train, test = load(settings.name, settings.source)
        pairs = find_duplicates(train, test)
        duplicates = [
            _duplicate(
                pair,
                f"train {pair.first}",
                f"test {pair.second}",
                " across splits",
                bool(np.array_equal(train.labels[pair.first], test.labels[pair.second])),
            )
            for pair in pairs
        ]
        return _findings({"train": train, "test": test}, duplicates, near=_near(pairs, train, test))
    data = read_custom(settings)
    labels, files = data.images.labels, data.images.files or ()
    split = np.array([name or "undivided" for name in data.split], dtype=object)
    duplicates = []
    for pair in data.duplicates():
        i, j = pair.first, pair.second
        across = "" if split[i] == split[j] else " across splits"
        duplicates.append(_duplicate(pair, files[i], files[j], across, np.array_equal(labels[i], labels[j])))
    groups = groups_across_splits(data.images.groups, data.split).items()
    divided = [Problem(group, "group across splits", f"has images in {', '.join(names)}", "note") for group, names in groups]
    parts = {name: data.images.take(np.flatnonzero(split == name)) for name in dict.fromkeys(split)}
    kinds = {
        "size": Counter(f"{header.width}x{header.height}" for header in data.headers),
        "mode": Counter(header.mode for header in data.headers),
        "format": Counter(header.format for header in data.headers),
    }
    near = _near(data.duplicates(), data.images, data.images)
    return _findings(parts, [*divided, *duplicates], data.problems, data.notes, kinds, near)


def _duplicate(pair: Duplicate, image: str, other: str, across: str, same_label: bool) -> Problem:
    kind, text = ("duplicate", "equals") if pair.is_exact else ("near duplicate", "looks like")
    if same_label:
        return Problem(image, kind + across, f"{text} {other}", "note")
    return Problem(image, kind + across, f"{text} {other}, under another label", "warning" if pair.is_exact else "note")


def _near(pairs: Sequence[Duplicate], a: ImageDataset, b: ImageDataset) -> tuple[tuple[Images, Images, str], ...]:
    weakest = sorted((pair for pair in pairs if not pair.is_exact), key=lambda pair: pair.correlation)[:MAX_NEAR]
    captions = [f"{_name(a, pair.first)}\n{_name(b, pair.second)}" for pair in weakest]
    images = [[data.take(np.array([index])).images[0] for data, index in ((a, pair[0]), (b, pair[1]))] for pair in weakest]
    return tuple((*both, caption) for both, caption in zip(images, captions, strict=True))


def _name(images: ImageDataset, index: int) -> str:
    return Path(images.files[index]).name if images.files else str(index)


def _findings(
    parts: Mapping[str, ImageDataset],
    notes_on_images: Sequence[Problem],
    problems: Sequence[Problem] = (),
    notes: tuple[str, ...] = (),
    kinds: Mapping[str, Mapping[str, int]] | None = None,
    near: tuple[tuple[Images, Images, str], ...] = (),
) -> Findings:
    classes = next(iter(parts.values())).classes
    counts = {name: tuple(class_counts(part.labels, len(classes)).tolist()) for name, part in parts.items()}
    split = "train" if "train" in counts else "undivided"
    training = counts.get(split, ())
    class_notes = [
        Problem(
            name,
            "small class",
            f"has {count} {'training ' * (split == 'train')}image{'s' * (count != 1)}; add some: {MIN_CLASS_IMAGES} are few",
            "note",
        )
        for name, count in zip(classes, training, strict=False)
        if count < MIN_CLASS_IMAGES
    ]
    if training and max(training) > MAX_IMBALANCE * max(min(training), 1):
        ratio = f"the largest has {max(training) / max(min(training), 1):.0f} times the images of the smallest"
        text = f"{ratio}; class_weights=balanced or sampling=balanced may help"
        class_notes.append(Problem("classes", "imbalance", text, "note"))
    images = {name: len(part) for name, part in parts.items()}
    return Findings(classes, images, counts, kinds or {}, notes, (*problems, *class_notes, *notes_on_images), near)
