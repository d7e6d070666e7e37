"""Cached downloads: files are fetched once, verified by SHA-256 and kept; built-in datasets are loaded from them."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from sprintnet.data.builtin.download import Download, local, open_members
from sprintnet.data.builtin.registry import BUILTIN_DATASETS
from sprintnet.data.dataset import ImageDataset
from sprintnet.errors import DataError, SettingsError, did_you_mean
from sprintnet.runs.io import cache_folder, remove_temporary, write_atomic

LOCK_SECONDS = 3600.0  # longer than all sources together may take

Log = Callable[[str], None]


def load(name: str, source: str = "", log: Log = print) -> tuple[ImageDataset, ImageDataset]:
    """Returns (train, test) of a built-in dataset; arguments and errors as in `fetch`."""
    files = fetch(name, source, log)
    return BUILTIN_DATASETS[name].decode(tuple(files.values()), BUILTIN_DATASETS[name].classes)


def is_cached(name: str) -> bool:
    """Returns whether the cache has all files of a built-in dataset; their content is verified when they are read."""
    return all((cache_folder() / name / file.name).is_file() for file in BUILTIN_DATASETS[name].files)


def fetch(name: str, source: str = "", log: Log = print) -> dict[str, bytes]:
    """Returns the files (name -> content) of a built-in dataset; `source`, a local folder or archive, is tried first.
    Raises SettingsError for an unknown name."""
    if name not in BUILTIN_DATASETS:
        hint = did_you_mean(name, BUILTIN_DATASETS)
        raise SettingsError(f"dataset {name or '(none)'}: must be one of {', '.join(BUILTIN_DATASETS)}{hint}")
    dataset = BUILTIN_DATASETS[name]
    if source:
        dataset = replace(dataset, sources=(local(source), *dataset.sources))
    remedy = f"download {dataset.manual_download} by other means, then: sprintnet data fetch {name} --source PATH"
    return fetch_files(dataset, cache_folder() / name, remedy, log)


def fetch_files(download: Download, folder: Path, remedy: str, log: Log = print) -> dict[str, bytes]:
    """Returns the verified files (name -> content) of a folder in the cache, which the first working source fills. Of
    two processes at once, one fetches. Raises DataError with the failure of each source and the remedy."""
    files = _read_cache(download, folder, log)  # files are replaced atomically, so reading needs no lock
    if len(files) == len(download.files):
        return files
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
            files = _read_cache(download, folder, log)
            if len(files) < len(download.files):
                for leftover in folder.glob(".fetch-*"):  # of a killed process
                    shutil.rmtree(leftover)
                remove_temporary(folder)
                files = _obtain(download, folder, remedy, log)
                for file in download.files:
                    write_atomic(folder / file.name, files[file.name])
                log(f"{download.title}: verified by SHA-256, cached in {folder}")
            return files
    except Timeout:
        raise DataError(f"{folder}: another process has been fetching for {LOCK_SECONDS:g} s; end it and try again") from None
    except OSError as error:
        megabytes = -(-3 * sum(file.size for file in download.files) // 10**8) * 100
        raise DataError(
            f"{folder}: cannot be used ({error}); set SPRINTNET_CACHE to a folder with {megabytes} MB free"
        ) from None


def _read_cache(download: Download, folder: Path, log: Log) -> dict[str, bytes]:
    files = {}
    for file in download.files:
        if (folder / file.name).is_file():
            try:
                files[file.name] = file.verify((folder / file.name).read_bytes())
            except DataError as error:
                log(f"{download.title}: the cached copy is damaged and will be replaced: {error}")
    return files


def _obtain(download: Download, folder: Path, remedy: str, log: Log) -> dict[str, bytes]:
    causes = []
    for source in download.sources:
        log(f"{download.title}: trying {source.label}")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as work:
            try:
                with open_members(source.obtain(Path(work), sum(file.size for file in download.files))) as members:
                    return download.rebuild(download.files, members)
            except DataError as error:
                causes.append(f"  {source.label}: {error}")
                log(f"{download.title}: failed: {error}")
    raise DataError("\n".join([f"{download.title} could not be obtained:", *causes, remedy]))
