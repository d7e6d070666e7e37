"""Manifests: the labelled images of a folder or table, listed without opening them, and the problems found."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from sprintnet.data.custom.conventions import as_text, similar_names
from sprintnet.data.dataset import LABEL_SEPARATOR, ImageDataset, Labels, class_counts

Severity = Literal["error", "skippable", "warning", "note"]
TRAINING_PROBLEMS = ("no training images", "unseen class", "one class")
"""The kinds of problems that do not matter to data for evaluation."""


class Problem(NamedTuple):
    """A problem of a dataset: where, of which kind, what."""

    path: str
    kind: str
    text: str
    severity: Severity = "skippable"
    """error: must be fixed; skippable: must be fixed, or can be left out with data.skip_bad; warning: most
    likely a mistake, with which training starts nevertheless; note: information."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class ManifestEntry(NamedTuple):
    """An image: path, label (several with | between them, | alone for none), split and group if given, size and time."""

    path: str
    label: str
    split: str = ""
    group: str = ""
    stamp: str = ""

    @property
    def labels(self) -> list[str]:
        """The class names in the label: one, several or none."""
        if LABEL_SEPARATOR not in self.label:
            return [self.label]
        return [name for part in self.label.split(LABEL_SEPARATOR) if (name := part.strip())]


@dataclass(frozen=True)
class Manifest:
    """The images of a dataset in a fixed order, the problems found, and how an image is opened."""

    source: Path
    entries: tuple[ManifestEntry, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    open: Callable[[ManifestEntry], Path | BinaryIO] = lambda entry: Path(entry.path)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, sorted."""
        distinct = {entry.label: entry for entry in self.entries}  # splitting each label of a large dataset takes seconds
        return tuple(sorted({name for entry in distinct.values() for name in entry.labels}))

    @property
    def fingerprint(self) -> str:
        """A digest of paths and stamps: the same fingerprint means the same pixels."""
        sha256 = hashlib.sha256()
        for entry in self.entries:
            sha256.update(f"{entry.path}\0{entry.stamp}\0".encode("utf-8", "surrogateescape"))
        return sha256.hexdigest()[:32]

    def labels(self) -> Labels:
        """Returns class indices int64 (N,), or of multi-label data 0 and 1, uint8 (N, K)."""
        index = {name: position for position, name in enumerate(self.classes)}
        if not any(LABEL_SEPARATOR in entry.label for entry in self.entries):
            return np.array([index[entry.label] for entry in self.entries], np.int64)
        labels = np.zeros((len(self.entries), len(index)), np.uint8)
        for row, entry in zip(labels, self.entries, strict=True):
            row[[index[name] for name in entry.labels]] = 1
        return labels


def class_problems(source: Path, images: ImageDataset, split: Sequence[str]) -> list[Problem]:
    """Returns the problems of the classes that have images; images without a split may be drawn for training."""
    training = images.labels[np.array([name in ("", "train") for name in split], bool)]
    has_images, is_trained = (class_counts(labels, len(images.classes)) > 0 for labels in (images.labels, training))
    text = "has no training image; add some, or remove its images"
    unseen = np.flatnonzero(has_images & ~is_trained)
    problems = [Problem(images.classes[index], "unseen class", text, "error") for index in unseen]
    for group in similar_names(images.classes):
        text = f"differ little: {', '.join(group)}; are they one class?"
        problems.append(Problem(as_text(source), "similar class names", text, "note"))
    if (count := int(has_images.sum())) < 2:
        text = f"contains {count} class; at least 2 are needed: <class>/* or train/<class>/*"
        problems.append(Problem(as_text(source), "one class", text, "error"))
    return problems


def stamp(status: os.stat_result) -> str:
    """Returns size, times and number of a file, by which a changed one is noticed. The time of modification alone can be set
    to what it was; the other time, of the last change of content or name, cannot."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
