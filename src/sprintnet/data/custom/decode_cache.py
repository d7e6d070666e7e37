"""What is found out about images once and cached: their pixels in a memory-mapped file, and JSON.

The folder of a source holds a folder for each of its states, which holds one for each form that the pictures were brought to.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from sprintnet.data.dataset import Images, release_pages
from sprintnet.errors import DataError, SprintNetError
from sprintnet.progress import track
from sprintnet.runs.io import write_atomic

CHUNK_SIZE = 256
"""Pictures that are decoded, and marked as done (by their CRC-32), together."""
BLOCK_BYTES = 1 << 24
LOCK, LOCK_SECONDS = ".lock", 6 * 3600.0

Failures = dict[int, str]
"""What could not be decoded: a picture's number -> why. Its pixels are 0."""
DecodeChunk = Callable[[Images, slice], tuple[Failures, bool]]
"""Writes a part of the pictures into the store; returns what failed, and whether another attempt would fail the same way."""


def load_decoded(
    source: Path, form: str, shape: tuple[int, int, int, int], fill: DecodeChunk, *, sequential_only: bool = False
) -> tuple[Images, Failures]:
    """Returns the decoded images (N, H, W, C), memory-mapped, and what could not be decoded.

    Where they are not there yet, `fill` decodes them, with a progress bar, on all cores, or `sequential_only` part after part.
    Killed, it goes on with the next call, which also tries again what may not fail again; of two processes one decodes and
    the other waits. Raises SprintNetError where the disk is full.
    """
    folder = source / form
    try:
        return _opened(folder, shape)
    except FileNotFoundError:
        with _alone_in(source):
            try:
                return _opened(folder, shape)
            except FileNotFoundError:
                failures = _decode(folder, shape, fill, sequential_only)
                return _mapped(folder, shape), failures


def load_or_compute(source: Path, name: str, find: Callable[[], Any]) -> Any:
    """Returns what is load_or_compute in a JSON file below the folder of a source; the first call finds it."""
    file = source / name
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        with _alone_in(source):
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(file, json.dumps(find()))
            return json.loads(file.read_text("utf-8"))


def remove_stale(source: Path, state: str) -> None:
    """Removes what is load_or_compute of other states of a source, unless a process is at work there."""
    others = [other for other in source.iterdir() if other.name != state and other.is_dir()]
    if others:
        with suppress(OSError), FileLock(source / LOCK, timeout=0):  # a Timeout is an OSError
            for other in others:
                shutil.rmtree(other, ignore_errors=True)


@contextmanager
def _alone_in(source: Path) -> Iterator[None]:
    """Waits until no other process writes below the folder of a source."""
    try:
        source.mkdir(parents=True, exist_ok=True)
        with FileLock(source / LOCK, timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise DataError(f"{source}: another process has been decoding for {LOCK_SECONDS / 3600:g} h; end it") from None
    except OSError as error:
        raise _unwritable(source, error) from None


def _unwritable(folder: Path, error: OSError, size: int = 0) -> SprintNetError:
    what = f"no room for {size / 1e6:,.0f} MB" if size else "cannot be written"
    remedy = "free some room, or set SPRINTNET_CACHE to a folder of yours on another disk"
    return SprintNetError(f"{folder}: {what} ({error.strerror}); {remedy}")


def _opened(folder: Path, shape: tuple[int, int, int, int]) -> tuple[Images, Failures]:
    failures = json.loads((folder / "failures.json").read_text("utf-8"))
    return _mapped(folder, shape), {int(index): cause for index, cause in failures.items()}


def _mapped(folder: Path, shape: tuple[int, int, int, int]) -> Images:
    # copy on write: to PyTorch memory that may not be written is a mistake, though nobody writes
    return np.memmap(folder / "images", np.uint8, "c", shape=shape)


def _decode(folder: Path, shape: tuple[int, int, int, int], fill: DecodeChunk, sequential_only: bool) -> Failures:
    folder.mkdir(parents=True, exist_ok=True)
    parts = [slice(start, min(start + CHUNK_SIZE, shape[0])) for start in range(0, shape[0], CHUNK_SIZE)]
    _reserve(folder / "images", int(np.prod(shape)))
    _reserve(folder / "done", 4 * len(parts))
    images = np.memmap(folder / "images", np.uint8, "r+", shape=shape)
    done = np.memmap(folder / "done", np.uint32, "r+", shape=(len(parts),))
    passing: Failures = {}

    def work(number: int) -> None:
        (folder / f"failures-{number}.json").unlink(missing_ok=True)
        failures, is_final = fill(images, parts[number])
        if is_final:
            if failures:
                write_atomic(folder / f"failures-{number}.json", json.dumps(failures))
            done[number] = zlib.crc32(images[parts[number]].data)  # the disk may get it before the pixels, and power may fail
        else:
            passing.update(failures)
        release_pages(images)

    left = [number for number, part in enumerate(parts) if not done[number] or done[number] != zlib.crc32(images[part].data)]
    with ThreadPoolExecutor(1 if sequential_only else os.cpu_count()) as pool:
        try:
            for _ in track(pool.map(work, left), len(left), f"decoding {shape[0]:,} pictures"):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    images.flush()
    found = sorted(folder.glob("failures-*.json"))
    final = {int(index): cause for file in found for index, cause in json.loads(file.read_text("utf-8")).items()}
    if not passing:
        write_atomic(folder / "failures.json", json.dumps(final))
        for file in (*found, folder / "done"):
            file.unlink()
    return final | passing


def _reserve(file: Path, size: int) -> None:
    """Makes sure that the disk has room: a write into a mapped file on a full disk would kill the process."""
    try:
        with file.open("a+b") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, max(size, 1))
            else:
                for start in range(stream.seek(0, os.SEEK_END), size, BLOCK_BYTES):
                    stream.write(bytes(min(BLOCK_BYTES, size - start)))
    except OSError as error:
        file.unlink(missing_ok=True)
        raise _unwritable(file.parent, error, size) from None
