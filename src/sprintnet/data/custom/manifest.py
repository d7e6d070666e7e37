"""What a folder or a table of one's own pictures holds, before any picture is opened, and what is wrong with it."""

import csv
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from sprintnet.data.dataset import LABEL_SEPARATOR, Labels
from sprintnet.data.images import SUFFIXES
from sprintnet.data.splits import SPLIT_ALIASES, SPLITS
from sprintnet.errors import DataError

SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")
"""What systems leave behind, besides hidden files: passed over, and counted."""


Severity = Literal["stop", "skip", "note"]


class Problem(NamedTuple):
    """One thing that is wrong: where, of which kind, what; and how grave it is."""

    path: str
    kind: str
    text: str
    severity: Severity = "skip"
    """stop: must be fixed; skip: must be fixed, or is left out with data.skip_bad; note: information."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class ManifestEntry(NamedTuple):
    """One picture as it is listed: where, its label (several with | between, | alone for none), split and group where given,
    size and time."""

    path: str
    label: str
    split: str = ""
    group: str = ""
    stamp: str = ""

    @property
    def labels(self) -> list[str]:
        """The names of its labels: one, several or none."""
        if LABEL_SEPARATOR not in self.label:
            return [self.label]
        return [name for part in self.label.split(LABEL_SEPARATOR) if (name := part.strip())]


@dataclass(frozen=True)
class Manifest:
    """The pictures of a data set in a fixed order, what is wrong, and how a picture is opened."""

    source: Path
    entries: tuple[ManifestEntry, ...]
    problems: tuple[Problem, ...] = ()
    ignored_files: int = 0
    """Hidden files and what else systems leave behind."""
    open: Callable[[ManifestEntry], Path | BinaryIO] = lambda entry: Path(entry.path)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(
            sorted({name for entry in {entry.label: entry for entry in self.entries}.values() for name in entry.labels})
        )

    @property
    def training_classes(self) -> frozenset[str]:
        """The names of the classes that training images may have."""
        found = {entry.label: entry for entry in self.entries if entry.split in ("", "train")}
        return frozenset(name for entry in found.values() for name in entry.labels)

    @property
    def multi_label(self) -> bool:
        """Whether images may have several labels, or none."""
        return any(LABEL_SEPARATOR in entry.label for entry in self.entries)

    @property
    def key(self) -> str:
        """A digest of places, sizes and times of change: the same key means the same pixels."""
        sha256 = hashlib.sha256()
        for entry in self.entries:
            sha256.update(f"{entry.path}\0{entry.stamp}\0".encode("utf-8", "surrogateescape"))
        return sha256.hexdigest()[:32]

    def labels(self) -> Labels:
        """Returns class numbers (N,), or of several labels an image uint8 (N, K)."""
        number = {name: index for index, name in enumerate(self.classes)}
        if not self.multi_label:
            return np.array([number[entry.labels[0]] for entry in self.entries], np.int64)
        marks = np.zeros((len(self.entries), len(number)), np.uint8)
        for row, entry in zip(marks, self.entries, strict=True):
            row[[number[name] for name in entry.labels]] = 1
        return marks


def class_problems(source: Path, classes: Collection[str], trained: Collection[str]) -> list[Problem]:
    """Returns what is wrong with the classes that images have as a whole, and those that training images may have."""
    text = "is in no training image; add some of it there, or remove it"
    found = [Problem(str(name), "unseen class", text, "stop") for name in classes if name not in trained]
    if len(classes) < 2:
        text = f"its pictures are of {len(classes)} class; at least 2 are needed: <class>/* or train/<class>/*"
        found.append(Problem(as_text(source), "one class", text, "stop"))
    return found


def read_folder(root: Path) -> Manifest:
    """Returns the pictures of <class>/*, or of train/<class>/*, val/<class>/* and test/<class>/*, by split, class and name."""
    walk = _Walk()
    top = list(walk.entries(root))
    parts = {
        entry.name: split
        for name, split in SPLIT_ALIASES.items()
        for entry, status in top
        if entry.name.lower() == name and stat.S_ISDIR(status.st_mode)
    }
    entries: list[ManifestEntry] = []
    empty: list[tuple[str, str]] = []
    for place, split in parts.items() or [("", "")]:
        for folder, status in walk.entries(root / place) if place else top:
            if not stat.S_ISDIR(status.st_mode):
                walk.report(folder, "stray file", "lies in no class; move it into <class>/, or away")
                continue
            name = as_text(folder.name)
            if LABEL_SEPARATOR in name:
                walk.report(
                    folder, "class name", f"has {LABEL_SEPARATOR}, which stands between several labels; rename it", "stop"
                )
                continue
            before = len(entries)
            for file, state in walk.entries(Path(folder.path)):
                if stat.S_ISDIR(state.st_mode):
                    walk.report(file, "nested folder", "a folder within a class; move its pictures up, or it away")
                elif not stat.S_ISREG(state.st_mode):
                    walk.report(file, "no file", "a pipe, socket or device; move it away")
                elif os.path.splitext(file.name)[1].lower() not in SUFFIXES:  # noqa: PTH122  # a fifth of Path's time
                    walk.report(file, "other file", f"none of {' '.join(SUFFIXES)}; convert it, or move it away")
                else:
                    entries.append(ManifestEntry(file.path, name, split, "", f"{state.st_size} {state.st_mtime_ns}"))
            if len(entries) == before and not walk.is_unreadable(folder):
                empty.append((folder.path, name))
    filled = {entry.label for entry in entries}
    for path, name in empty:  # in a split, a class may lack pictures; in all of them, it is no class
        is_class = name in filled
        walk.problems.append(
            Problem(as_text(path), "empty class", "holds no picture; fill it, or remove it", "note" if is_class else "skip")
        )
    for entry, _ in top if parts else ():
        if entry.name not in parts:
            walk.report(entry, "beside the splits", f"lies beside {next(iter(parts))}/; move it into a split, or away")
    if parts and "train" not in parts.values():
        text = f"has {next(iter(parts))}/ but no train/; add it"
        walk.problems.append(Problem(as_text(root), "no training images", text, "stop"))
    return Manifest(root, tuple(entries), tuple(walk.problems), walk.ignored_files)


def read_table(file: Path, rows: Iterable[Mapping[str, str | None]]) -> Manifest:
    """Returns the pictures of a table's rows, in order: path (from the table's folder on), label, and if given split, group.

    Raises DataError where a column is missing.
    """
    walk = _Walk()
    entries: list[ManifestEntry] = []
    seen: dict[str, tuple[int, str]] = {}
    for number, row in enumerate(rows, 1):
        place = f"{file}, row {number:,}"
        path, label, split, group = (as_text(row.get(column) or "") for column in ("path", "label", "split", "group"))
        path, label, split = row.get("path") or "", label.strip(), split.strip()
        if not path or not label:
            if number == 1 and not {"path", "label"} <= set(row):
                raise DataError(
                    f"{file}: has the columns {', '.join(map(str, row))}; path and label are needed, split and group may be"
                )
            text = f"has no label; write it ({LABEL_SEPARATOR} for none)" if path else "has no path; write it"
            walk.problems.append(Problem(place, "incomplete row", f"{text}, or remove the row"))
        elif split and split.lower() not in SPLIT_ALIASES:
            walk.problems.append(
                Problem(place, "unknown split", f"split {split}; write one of {', '.join(SPLITS)}, or nothing")
            )
        else:
            picture = file.parent / path
            try:
                state = picture.stat()
            except (OSError, ValueError) as error:
                cause = getattr(error, "strerror", None) or str(error)
                walk.problems.append(
                    Problem(as_text(str(picture)), "unreadable", f"{cause} ({place}); restore it, or remove the row")
                )
                continue
            if not stat.S_ISREG(state.st_mode):
                walk.problems.append(
                    Problem(as_text(str(picture)), "no file", f"a folder, pipe or device ({place}); name a picture")
                )
                continue
            if first := seen.get(str(picture)):
                others = "" if first[1] == label else f", as {first[1]} and as {label}"
                text = f"stands in rows {first[0]:,} and {number:,} of {file}{others}; leave one"
                walk.problems.append(Problem(as_text(picture), "repeated row", text, "stop" if others else "skip"))
                continue
            seen[str(picture)] = number, label
            stamp = f"{state.st_size} {state.st_mtime_ns}"
            entries.append(ManifestEntry(str(picture), label, SPLIT_ALIASES.get(split.lower(), ""), group, stamp))
    return Manifest(file, tuple(entries), tuple(walk.problems))


def csv_rows(file: Path) -> Iterator[Mapping[str, str | None]]:
    """Yields the rows of a CSV file with a head; raises DataError where it cannot be read."""
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            yield from csv.DictReader(stream)
    except (OSError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as CSV ({getattr(error, 'strerror', None) or error}); mend it") from None


def as_text(name: str | Path) -> str:
    """Returns a file's name as text: bytes that are no UTF-8 are written as \\\\xNN."""
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class _Walk:
    """What is met on a walk through folders."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.ignored_files = 0

    def entries(self, folder: Path) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
        """Yields what a folder shows, by name; links are followed, a loop of them is a problem."""
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(Problem(as_text(folder), "unreadable", f"{error.strerror}; make it readable, or remove it"))
            return
        for entry in found:
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM_FILES:
                self.ignored_files += 1
                continue
            try:
                status = entry.stat()
            except OSError as error:
                self.report(entry, "unreadable", f"{error.strerror}; mend it, or remove it")
                continue
            yield entry, status

    def is_unreadable(self, folder: os.DirEntry[str]) -> bool:
        """Returns whether the folder that was walked last could not be read."""
        return bool(self.problems) and self.problems[-1][:2] == (as_text(folder.path), "unreadable")

    def report(self, entry: os.DirEntry[str], kind: str, text: str, severity: Severity = "skip") -> None:
        """Notes a problem with an entry."""
        self.problems.append(Problem(as_text(entry.path), kind, text, severity))
