"""Atomic file writes (text, JSON, CSV, NumPy archives), and the location of the cache."""

import csv
import datetime
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sprintnet.runs.environment import environment_record


def cache_folder() -> Path:
    """Returns the cache of datasets and kernels: $SPRINTNET_CACHE, else sprintnet under $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("SPRINTNET_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sprintnet"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replaces a file atomically: a crash at any moment leaves the old content or the new."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")  # one name: killed processes leave no pile of files
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself is durable once the folder is; Windows cannot open one
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_arrays(path: Path, **arrays: Any) -> None:
    """Writes a compressed NumPy archive."""
    import numpy as np

    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)
    write_atomic(path, archive.getvalue())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes readable JSON."""
    write_atomic(path, json.dumps(value, indent=2) + "\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Writes a CSV file; the columns, if not given, are the first row's keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns or list(rows[0] if rows else ()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Appends a row to a file of JSON lines, with date, code, versions and processor unless the row has its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = environment_record()
    here = {key: record[key] for key in ("commit", "code_sha256", "versions", "cpu", "processor", "cores")}
    whole = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), **here, **row}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(whole) + "\n")
