"""Tables of pictures that need a library of their own: Parquet files, and folders that Hugging Face's datasets saved."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sprintnet.data.custom.manifest import Manifest, ManifestEntry, Problem
from sprintnet.data.dataset import LABEL_SEPARATOR
from sprintnet.data.splits import SPLIT_ALIASES
from sprintnet.errors import DataError

UNKNOWN_LABEL = -1
"""Stands for a label that is not known, as that of a test set that is kept secret."""


def parquet_rows(file: Path) -> Iterator[Mapping[str, str | None]]:
    """Yields the rows of a Parquet file as text; raises DataError where it cannot be read."""
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({str(error).splitlines()[0]}); write it anew") from None
    for row in table.to_pylist():
        yield {key: None if value is None else str(value) for key, value in row.items()}


def is_huggingface(folder: Path) -> bool:
    """Returns whether Hugging Face's datasets saved a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def read_huggingface(folder: Path) -> Manifest:
    """Returns the pictures of a folder that Hugging Face's datasets saved (`save_to_disk`): its image column and its labels.

    Raises DataError where there are no such columns, or a split of another name.
    """
    import datasets

    try:
        whole = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library's kinds have no common base
        raise DataError(f"{folder}: cannot be read by Hugging Face's datasets ({error}); save it anew") from None
    parts = dict(whole) if isinstance(whole, datasets.DatasetDict) else {"": whole}
    if unknown := [name for name in parts if name and name not in SPLIT_ALIASES]:
        raise DataError(f"{folder}: has a split {unknown[0]}; name it one of {', '.join(SPLIT_ALIASES)}")
    entries: list[ManifestEntry] = []
    problems: list[Problem] = []
    encoded: dict[str, Any] = {}
    for name, part in parts.items():
        picture = _column(folder, part, datasets.Image)
        label, names = _labels(folder, part)
        encoded[name] = part.select_columns([picture]).cast_column(picture, datasets.Image(decode=False))
        for index, value in enumerate(part[label]):
            values = value if isinstance(value, list) else [value]
            if any(entry is None or entry == UNKNOWN_LABEL for entry in values):
                problems.append(Problem(f"{name or 'images'}/{index}", "no label", "has no label; give it one, or remove it"))
                continue
            text = LABEL_SEPARATOR.join(names[entry] if names else str(entry) for entry in values) or LABEL_SEPARATOR
            entries.append(
                ManifestEntry(f"{name or 'images'}/{index}", text, SPLIT_ALIASES.get(name, ""), "", part._fingerprint)
            )

    def open_item(entry: ManifestEntry) -> Path | BinaryIO:
        name, _, index = entry.path.rpartition("/")
        (content,) = encoded["" if name == "images" else name][int(index)].values()
        if content is None or (content["bytes"] is None and content["path"] is None):
            raise DataError(f"{entry.path}: holds no picture; remove it")
        return Path(content["path"]) if content["bytes"] is None else io.BytesIO(content["bytes"])

    return Manifest(folder, tuple(entries), tuple(problems), open=open_item)


def _column(folder: Path, part: Any, kind: type) -> str:
    found = [name for name, feature in part.features.items() if isinstance(feature, kind)]
    if not found:
        raise DataError(f"{folder}: has no column of images among {', '.join(part.features)}; cast one to datasets.Image")
    return str(found[0])


def _labels(folder: Path, part: Any) -> tuple[str, list[str]]:
    """Returns the column of labels and the names of its numbers (none where they are text)."""
    import datasets

    for name, feature in part.features.items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.ClassLabel):
            return name, list(inner.names)
    if "label" not in part.features:
        raise DataError(f"{folder}: has no column of labels among {', '.join(part.features)}; name one label")
    return "label", []
