"""Tables of images: CSV and Parquet files, and folders saved by Hugging Face's datasets."""

import codecs
import contextlib
import csv
import io
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sprintnet.data.custom.conventions import as_text, class_name, find_columns, is_unknown
from sprintnet.data.custom.manifest import Manifest, ManifestEntry, Problem, stamp
from sprintnet.data.dataset import LABEL_SEPARATOR
from sprintnet.data.splits import SPLIT_ALIASES, SPLITS
from sprintnet.errors import DataError

DELIMITERS = ",;\t|"
REST = "\0rest"  # the key of what a row holds beyond the columns
Rows = Iterable[Mapping[str, str | None]]


def read_table(file: Path, columns: Sequence[str], rows: Rows) -> Manifest:
    """Returns the images of a table in order: path (relative to the table), label, and optionally split and group.
    Raises DataError if a column is missing, or there are no rows."""
    named = find_columns(file, columns)
    problems: list[Problem] = []
    entries: list[ManifestEntry] = []
    seen: dict[str, tuple[int, str]] = {}
    number = 0
    for number, row in enumerate(rows, 1):
        where = f"{file}, row {number:,}"
        given = row.get(named["path"])
        cells = {role: as_text(row.get(column) or "").strip() for role, column in named.items()}
        label, split, group = (cells.get(role, "") for role in ("label", "split", "group"))
        if not given or is_unknown(label):
            text = f"has no label ({label or 'empty'}); add it ({LABEL_SEPARATOR} for none)" if given else "has no path; add it"
            problems.append(Problem(where, "no label" if given else "incomplete row", f"{text}, or remove the row"))
        elif row.get(REST):
            text = f"has more cells than the header ({row[REST]}); quote text that contains the separator"
            problems.append(Problem(where, "cells without a column", text, "error"))
        elif split and split.lower() not in SPLIT_ALIASES:
            text = f"has split {split}; use one of {', '.join(SPLITS)}, or none"
            problems.append(Problem(where, "unknown split", text))
        else:
            try:
                path, status = _find_image(file.parent, given)
            except (OSError, ValueError) as error:
                text = f"{getattr(error, 'strerror', None) or error} ({where}); restore it, or remove the row"
                problems.append(Problem(as_text(file.parent / given), "unreadable", text))
                continue
            first, first_label = seen.setdefault(os.path.normpath(path), (number, label))
            if not stat.S_ISREG(status.st_mode):
                text = f"is a folder, pipe or device ({where}); name an image"
                problems.append(Problem(as_text(path), "no file", text))
            elif first < number:
                labels = "" if first_label == label else f", as {first_label} and as {label}"
                text = f"is in rows {first:,} and {number:,} of {file}{labels}; keep one"
                problems.append(Problem(as_text(path), "repeated row", text, "error" if labels else "skippable"))
            else:
                entries.append(
                    ManifestEntry(path, class_name(label), SPLIT_ALIASES.get(split.lower(), ""), group, stamp(status))
                )
    _require_classes(file, entries)
    if not number:
        raise DataError(f"{file}: has a header but no rows; add a row for each image")
    unread = [name for name in columns if name and name not in named.values()]
    return Manifest(file, tuple(entries), tuple(problems), (f"columns that are not read: {', '.join(unread)}",) * bool(unread))


def _require_classes(file: Path, entries: Sequence[ManifestEntry]) -> None:
    """Raises DataError for labels that are fractions, most of which occur once: values to predict, not classes."""
    labels = {entry.label for entry in entries}
    with contextlib.suppress(ValueError):  # text
        fractions = [label for label in labels if not float(label).is_integer()]
        if fractions and len(labels) > len(entries) / 2:
            raise DataError(f"{file}: labels are fractions, such as {min(fractions)}; classes are names or whole numbers")


def _find_image(folder: Path, given: str) -> tuple[str, os.stat_result]:
    """Returns path and status of an image: as written, without spaces around it, or / for \\; raises OSError, ValueError."""
    for spelt in (given.strip(), given.strip().replace("\\", "/")):
        with contextlib.suppress(OSError, ValueError):
            path = os.path.join(folder, spelt)  # noqa: PTH118  # half of Path's time, as is stat
            return path, os.stat(path)  # noqa: PTH116
    path = str(folder / given)
    return path, os.stat(path)  # noqa: PTH116


def read_csv(file: Path) -> tuple[Sequence[str], Rows]:
    """Returns the columns of a CSV file and its rows, separated by commas, semicolons, tabs or |, in UTF-8 or UTF-16.
    Raises DataError if it cannot be read."""
    try:
        content = file.read_bytes()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16") if is_utf16 else content.decode("utf-8-sig", "surrogateescape")
        text = text.lstrip("\r\n")
        first, _, rest = text.partition("\n")
        if first.lower().startswith("sep=") and len(first.strip()) == len("sep=;"):  # Excel's
            return _read_csv(file, rest, first[4])
        delimiter = max(DELIMITERS, key=first.count)  # the first of those that are as frequent
        return _read_csv(file, text, delimiter)
    except (OSError, ValueError, csv.Error) as error:
        cause = getattr(error, "strerror", None) or error
        raise DataError(f"{file}: cannot be read as CSV ({cause}); save it as UTF-8 with a header") from None


def _read_csv(file: Path, text: str, delimiter: str) -> tuple[Sequence[str], Rows]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    columns = [name.strip() for name in next(lines, [])]
    if not columns:
        raise DataError(f"{file}: is empty; the first row must name path and label, then a row for each image")

    def rows() -> Iterator[Mapping[str, str | None]]:
        try:
            for row in lines:
                if row:
                    rest = ", ".join(filter(None, row[len(columns) :]))
                    yield {**dict(itertools.zip_longest(columns, row[: len(columns)])), REST: rest}
        except csv.Error as error:
            raise DataError(f"{file}: cannot be read as CSV ({error}); save it as UTF-8 with a header") from None

    return columns, rows()


def read_parquet(file: Path) -> tuple[Sequence[str], Rows]:
    """Returns the columns of a Parquet file and its rows as text; raises DataError if it cannot be read."""
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
        rows = table.to_pylist()
    except Exception as error:  # of a damaged file, the library raises what it likes
        raise DataError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]}); write it again") from None
    named = find_columns(file, table.column_names).values()
    return table.column_names, ({key: _cell(file, key, row[key]) for key in named} for row in rows)


def _cell(file: Path, column: str, value: Any) -> str | None:
    """Returns a value of a Parquet file as text, lists as several labels; raises DataError for what cannot be meant."""
    if value is None:
        return None
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
    if isinstance(value, bytes | dict):
        remedy = "write the images as files and name them, or save them with Hugging Face's datasets (save_to_disk)"
        raise DataError(f"{file}: column {column} contains images, not their paths; {remedy}")
    if isinstance(value, list):
        if None in value:
            return None
        if len(value) > 1 and set(value) <= {0, 1}:
            raise DataError(f"{file}: column {column} contains lists of 0 and 1; write class names, or an .npz of the marks")
        return LABEL_SEPARATOR.join(map(str, value)) or LABEL_SEPARATOR
    return str(value)


def is_huggingface(folder: Path) -> bool:
    """Returns whether Hugging Face's datasets saved a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def read_huggingface(folder: Path) -> Manifest:
    """Returns the images of a folder saved by Hugging Face's datasets (`save_to_disk`): its first image column and its
    labels. Raises DataError if there are no such columns, or a split has another name."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library's exceptions have no common base
        raise DataError(f"{folder}: cannot be read by Hugging Face's datasets ({error}); save it again") from None
    parts = dict(saved) if isinstance(saved, datasets.DatasetDict) else {"": saved}
    if unknown := [name for name in parts if name and name not in SPLIT_ALIASES]:
        raise DataError(f"{folder}: has a split {unknown[0]}; name it one of {', '.join(SPLIT_ALIASES)}")
    entries: list[ManifestEntry] = []
    problems: list[Problem] = []
    encoded: dict[str, Any] = {}
    for name, part in parts.items():
        image, label, class_names = _columns(folder, part)
        encoded[name or "images"] = part.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        files = (Path(file["filename"]) for file in part.cache_files)
        version = " ".join([part._fingerprint, *(stamp(file.stat()) for file in files)])
        for index, value in enumerate(part[label]):
            path, values = f"{name or 'images'}/{index}", value if isinstance(value, list) else [value]
            if any(is_unknown(entry) for entry in values):
                problems.append(Problem(path, "no label", "has no label; add one, or remove it"))
                continue
            text = LABEL_SEPARATOR.join(class_name(class_names[entry] if class_names else entry) for entry in values)
            split = SPLIT_ALIASES.get(name, "")
            entries.append(ManifestEntry(path, text or LABEL_SEPARATOR, split, "", version))

    def open_entry(entry: ManifestEntry) -> Path | BinaryIO:
        name, _, index = entry.path.rpartition("/")
        (content,) = encoded[name][int(index)].values()
        if content is None or (content["bytes"] is None and content["path"] is None):
            raise DataError(f"{entry.path}: contains no image; remove it")
        return Path(content["path"]) if content["bytes"] is None else io.BytesIO(content["bytes"])

    return Manifest(folder, tuple(entries), tuple(problems), open=open_entry)


def _columns(folder: Path, part: Any) -> tuple[str, str, list[str]]:
    """Returns the names of the image column and the label column, and the class names, none if the labels are text."""
    import datasets

    features = {name: getattr(feature, "feature", feature) for name, feature in part.features.items()}
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    labels = ["label"] if "label" in features else classes
    if not images:
        raise DataError(f"{folder}: has no image column among {', '.join(features)}; cast one to datasets.Image")
    if not labels:
        raise DataError(f"{folder}: has no label column among {', '.join(features)}; name one label")
    for what, columns in (("image", images), ("label", labels)):
        if len(columns) > 1:
            rest = f"keep one of them (Dataset.remove_columns){', or call it label' * (what == 'label')}"
            raise DataError(f"{folder}: has the {what} columns {', '.join(columns)}; {rest}")
    return images[0], labels[0], list(getattr(features[labels[0]], "names", ()))
