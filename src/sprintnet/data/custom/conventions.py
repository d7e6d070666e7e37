"""What the readers of custom data have in common: names of columns, marks of images without a label, class names as text."""

import contextlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from sprintnet.errors import DataError

COLUMNS = {
    "path": ("path", "file", "filename", "filepath", "image", "imagepath", "img", "imgpath", "imagefile"),
    "label": ("label", "labels", "class", "classname", "category", "target"),
    "split": ("split", "subset", "partition"),
    "group": ("group", "groupid"),
}
"""What a column holds -> its names, without capitals, spaces, _ and -; the first one wins over the others."""
UNKNOWN_LABELS = frozenset({"", "-1", "-1.0", "nan", "<na>", "null"})
"""Marks of images without a label, in lower case, such as those of a secret test set."""


def find_columns(source: str | Path, names: Iterable[str]) -> dict[str, str]:
    """Returns the name of the column for path, label and, where they exist, split and group; raises DataError where path or
    label is missing, or two columns could be meant."""
    names = list(names)
    plain = {name: "".join(letter for letter in name.lower() if letter not in " _-") for name in names}
    found: dict[str, str] = {}
    for role, known in COLUMNS.items():
        named = [name for name in names if plain[name] in known]
        first = [name for name in named if plain[name] == role] or named
        if len(first) > 1:
            raise DataError(f"{source}: the columns {', '.join(first)} could each be the {role}; call one of them {role}")
        found |= dict.fromkeys([role], first[0]) if first else {}
    if missing := [role for role in ("path", "label") if role not in found]:
        columns = ", ".join(names) or "none"
        raise DataError(
            f"{source}: has the columns {columns}, none for {' and '.join(missing)}; the first row must name path and label "
            "(split and group are optional)"
        )
    return found


def is_unknown(label: object) -> bool:
    """Returns whether a label marks an image without one."""
    return label is None or str(label).strip().lower() in UNKNOWN_LABELS


def as_text(name: str | Path) -> str:
    """Returns a file name as text; bytes that are not UTF-8 are written as \\\\xNN."""
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def class_name(name: object) -> str:
    """Returns a class name as text, without spaces around it. Names that look the same are the same: an e with an accent may be
    one character or two."""
    return unicodedata.normalize("NFC", as_text(str(name))).strip()


def similar_names(names: Iterable[str]) -> list[list[str]]:
    """Returns the groups of names that differ in capitals alone, or as 1, 1.0 and 01 do."""
    groups: dict[object, list[str]] = {}
    for name in names:
        key: object = name.casefold()
        with contextlib.suppress(ValueError):
            key = float(name)
        groups.setdefault(key, []).append(name)
    return [group for group in groups.values() if len(group) > 1]
