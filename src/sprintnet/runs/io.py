"""Atomic file writes (text, JSON, CSV, NumPy archives), and the location of the cache."""

import csv
import ctypes
import datetime
import io
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sprintnet.errors import SettingsError
from sprintnet.runs.environment import environment_record

TEMPORARY, TEMPORARY_SECONDS = ".sprintnet-", 3600.0  # with what the names of unfinished files begin; how long one may take
CACHE_IN_USE_SECONDS = 3600.0
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux: man 2 renameat2
RENAME_SWAP = 2  # macOS: man 2 renamex_np


def cache_folder() -> Path:
    """Returns the cache of datasets and kernels: $SPRINTNET_CACHE, else sprintnet under $XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("SPRINTNET_CACHE")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sprintnet"
    except RuntimeError:  # no such user, or a user without a home
        given = f"SPRINTNET_CACHE={chosen}: no such home folder" if chosen else "the user has no home folder for the cache"
        raise SettingsError(f"{given}; set SPRINTNET_CACHE to the full path of a folder") from None


def limit_cache(folder: Path, limit: int) -> None:
    """Removes the least recently used files (by `mtime`) until the rest has no more than `limit` bytes.

    What was used within the last hour stays: another process may be about to read it. A file that is gone, or another user's,
    is passed over.
    """
    used = []
    for file in folder.iterdir():
        with suppress(OSError):
            status = file.stat()
            used.append((status.st_mtime, status.st_size, file))
    total = 0
    for moment, size, file in sorted(used, reverse=True):
        total += size
        if total > limit and time.time() - moment > CACHE_IN_USE_SECONDS:
            with suppress(OSError):
                file.unlink()


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replaces a file atomically: a crash at any moment leaves the old content or the new."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    # a name of its own for each writer, which nobody can foresee, in a file that does not exist yet: others write here too
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:  # of a write that failed, the system names no file
        raise OSError(error.errno, error.strerror, f"{path} ({len(data):,} bytes)") from None
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself is durable once the folder is; Windows cannot open one
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def replace_folder(old: Path, new: Path) -> None:
    """Puts a folder in the place of another, whose content is left in `new` or removed. Where the system can exchange two
    names at once (Linux, macOS), a kill at any moment leaves the old content or the new; elsewhere, after a kill between two
    renames, `restore_folder` brings the old one back."""
    if not old.exists():
        new.replace(old)
    elif not _exchange(old, new):
        old.replace(_aside(old))
        new.replace(old)
        shutil.rmtree(_aside(old))


def restore_folder(folder: Path) -> None:
    """Brings back a folder that a killed `replace_folder` has put aside, or removes it where the new one is there."""
    aside = _aside(folder)
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.exists():
        aside.replace(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".old-{folder.name}")


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges the names of two folders; returns whether the system, and the file system, can."""
    names = os.fsencode(first), os.fsencode(second)
    library: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(library, "renameat2"):
        return bool(library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0)
    if hasattr(library, "renamex_np"):
        return bool(library.renamex_np(*names, RENAME_SWAP) == 0)
    return False


def remove_temporary(folder: Path) -> None:
    """Removes what killed writers have left in a folder; younger files may belong to a writer at work."""
    for file in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > TEMPORARY_SECONDS:
                file.unlink()


def write_arrays(path: Path, **arrays: Any) -> None:
    """Writes a compressed NumPy archive."""
    import numpy as np

    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)
    write_atomic(path, archive.getvalue())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes readable JSON."""
    write_atomic(path, as_json(value))


def as_json(value: Mapping[str, Any]) -> bytes:
    """Returns the content of a file that `write_json` writes."""
    return (json.dumps(value, indent=2) + "\n").encode()


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
