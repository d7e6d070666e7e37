"""Named data sets go through the cache; nothing enters that unverified."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from sprintnet.data.builtin.download import local, opened
from sprintnet.data.builtin.registry import BUILTIN_DATASETS, BuiltinDataset
from sprintnet.data.dataset import ImageDataset
from sprintnet.errors import DataError, SettingsError
from sprintnet.runs.io import cache_folder, write_atomic

LOCK_SECONDS = 3600.0  # more than all sources together may take

Log = Callable[[str], None]


def load(name: str, source: str = "", log: Log = print) -> tuple[ImageDataset, ImageDataset]:
    """Returns (train, test) of a named data set, fetched on first use.

    Raises SettingsError for an unknown name, DataError where it cannot be obtained, verified or read.
    """
    files = fetch(name, source, log)
    return BUILTIN_DATASETS[name].decode(tuple(files.values()), BUILTIN_DATASETS[name].classes)


def is_cached(name: str) -> bool:
    """Returns whether the cache holds all files of a named data set; what is in them is verified when they are read."""
    return all((cache_folder() / name / file.cached_name).is_file() for file in BUILTIN_DATASETS[name].files)


def fetch(name: str, source: str = "", log: Log = print) -> dict[str, bytes]:
    """Returns the verified files of a named data set from the cache, obtaining them first where they are missing.

    `source`, a local folder or archive, is tried first, then what is known to have the data set. Two processes at once fetch
    once. Raises SettingsError for an unknown name, DataError with the cause of each failure.
    """
    if name not in BUILTIN_DATASETS:
        raise SettingsError(f"data set {name or '(none)'}: must be one of {', '.join(BUILTIN_DATASETS)}")
    named, folder = BUILTIN_DATASETS[name], cache_folder() / name
    files = _read_cache(named, folder, log)  # files are only ever replaced whole: reading needs no lock, nor a writable folder
    if len(files) == len(named.files):
        return files
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
            files = _read_cache(named, folder, log)
            if len(files) < len(named.files):
                for left_by_a_kill in folder.glob(".fetch-*"):
                    shutil.rmtree(left_by_a_kill)
                files = _obtain(name, named, source, folder, log)
                for file in named.files:
                    write_atomic(folder / file.cached_name, file.pack(files[file.name]))
                log(f"{named.title}: verified by MD5 and SHA-256, kept in {folder}")
            return files
    except Timeout:
        raise DataError(f"{folder}: another process has been fetching for {LOCK_SECONDS:g} s; end it and try again") from None
    except OSError as error:
        room = -(-3 * sum(file.size for file in named.files) // 10**8) * 100
        raise DataError(f"{folder}: cannot be used ({error}); set SPRINTNET_CACHE to a folder with {room} MB free") from None


def _read_cache(named: BuiltinDataset, folder: Path, log: Log) -> dict[str, bytes]:
    files = {}
    for file in named.files:
        if (folder / file.cached_name).is_file():
            try:
                files[file.name] = file.unpack((folder / file.cached_name).read_bytes())
            except DataError as error:
                log(f"{named.title}: the cached copy is damaged and will be replaced: {error}")
    return files


def _obtain(name: str, named: BuiltinDataset, source: str, folder: Path, log: Log) -> dict[str, bytes]:
    causes = []
    for place in (*([local(source)] if source else []), *named.sources):
        log(f"{named.title}: trying {place.label}")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as work:
            try:
                with opened(place.obtain(Path(work))) as members:
                    return named.rebuild(named.files, members)
            except DataError as error:
                causes.append(f"{place.label}: {error}")
                log(f"{named.title}: failed: {error}")
    raise DataError(
        f"{named.title} could not be obtained:\n  "
        + "\n  ".join(causes)
        + f"\ndownload {named.manual_download} by other means, then: sprintnet data fetch {name} --source PATH"
    )
