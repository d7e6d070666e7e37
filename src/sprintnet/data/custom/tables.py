"""Tables of images: CSV and Parquet files, and folders saved by Hugging Face's datasets."""

import csv
import io
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sprintnet.data.custom.manifest import Manifest, ManifestEntry, Problem, as_text, stamp
from sprintnet.data.dataset import LABEL_SEPARATOR
from sprintnet.data.splits import SPLIT_ALIASES, SPLITS
from sprintnet.errors import DataError

UNKNOWN_LABEL = -1  # marks images without a published label, such as those of a secret test set


def read_table(file: Path, rows: Iterable[Mapping[str, str | None]]) -> Manifest:
    """Returns the images of a table in order: path (relative to the table), label, and optionally split and group.
    Raises DataError if a column is missing."""
    problems: list[Problem] = []
    entries: list[ManifestEntry] = []
    seen: dict[str, tuple[int, str]] = {}
    for number, row in enumerate(rows, 1):
        if number == 1 and not {"path", "label"} <= set(row):
            columns = ", ".join(map(str, row))
            raise DataError(f"{file}: has the columns {columns}; path and label are needed, split and group are optional")
        where = f"{file}, row {number:,}"
        label, split, group = (as_text(row.get(column) or "").strip() for column in ("label", "split", "group"))
        if not row.get("path") or not label:
            text = f"has no label; add it ({LABEL_SEPARATOR} for none)" if row.get("path") else "has no path; add it"
            problems.append(Problem(where, "incomplete row", f"{text}, or remove the row"))
        elif split and split.lower() not in SPLIT_ALIASES:
            text = f"has split {split}; use one of {', '.join(SPLITS)}, or none"
            problems.append(Problem(where, "unknown split", text))
        else:
            path = str(file.parent / str(row["path"]))
            try:
                status = os.stat(path)  # noqa: PTH116  # half of Path's time
            except (OSError, ValueError) as error:
                text = f"{getattr(error, 'strerror', None) or error} ({where}); restore it, or remove the row"
                problems.append(Problem(as_text(path), "unreadable", text))
                continue
            first, first_label = seen.setdefault(path, (number, label))
            if not stat.S_ISREG(status.st_mode):
                text = f"is a folder, pipe or device ({where}); name an image"
                problems.append(Problem(as_text(path), "no file", text))
            elif first < number:
                labels = "" if first_label == label else f", as {first_label} and as {label}"
                text = f"is in rows {first:,} and {number:,} of {file}{labels}; keep one"
                problems.append(Problem(as_text(path), "repeated row", text, "error" if labels else "skippable"))
            else:
                entries.append(ManifestEntry(path, label, SPLIT_ALIASES.get(split.lower(), ""), group, stamp(status)))
    return Manifest(file, tuple(entries), tuple(problems))


def csv_rows(file: Path) -> Iterator[Mapping[str, str | None]]:
    """Yields the rows of a CSV file with a header; raises DataError if it cannot be read."""
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            yield from csv.DictReader(stream)
    except (OSError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as CSV ({getattr(error, 'strerror', None) or error}); fix it") from None


def parquet_rows(file: Path) -> Iterator[Mapping[str, str | None]]:
    """Yields the rows of a Parquet file as text; raises DataError if it cannot be read."""
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]}); write it again") from None
    for row in table.to_pylist():
        yield {key: None if value is None else str(value) for key, value in row.items()}


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
        for index, value in enumerate(part[label]):
            path, values = f"{name or 'images'}/{index}", value if isinstance(value, list) else [value]
            if any(entry is None or entry == UNKNOWN_LABEL for entry in values):
                problems.append(Problem(path, "no label", "has no label; add one, or remove it"))
                continue
            text = LABEL_SEPARATOR.join(class_names[entry] if class_names else str(entry) for entry in values)
            split = SPLIT_ALIASES.get(name, "")
            entries.append(ManifestEntry(path, text or LABEL_SEPARATOR, split, "", part._fingerprint))

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
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)] or ["label"]
    if not images:
        raise DataError(f"{folder}: has no image column among {', '.join(features)}; cast one to datasets.Image")
    if labels[0] not in features:
        raise DataError(f"{folder}: has no label column among {', '.join(features)}; name one label")
    return images[0], labels[0], list(getattr(features[labels[0]], "names", ()))
