"""Decoded pictures in a file that is mapped into memory: filled once, in parallel, by one process; read by all."""

import json
import os
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from sprintnet.data.dataset import Images, release
from sprintnet.errors import DataError, SprintNetError
from sprintnet.files import write_atomic
from sprintnet.reporting.progress import track

PART = 256
"""Pictures that are decoded, and marked as done (by their CRC-32), together."""
BLOCK_BYTES = 1 << 24
LOCK_SECONDS = 6 * 3600.0

Failures = dict[int, str]
"""What could not be decoded: a picture's number -> why. Its pixels are 0."""
Fill = Callable[[Images, slice], Failures]
"""Writes a part of the pictures into the store and returns what failed."""


def stored(folder: Path, shape: tuple[int, int, int, int], fill: Fill, in_turn: bool = False) -> tuple[Images, Failures]:
    """Returns the images (N, H, W, C) kept in a folder, mapped from their file, and what could not be decoded.

    Where they are not there yet, `fill` decodes them, with a progress bar, on all cores, or `in_turn` part after part.
    Killed, it goes on with the next call; of two processes one decodes and the other waits. Raises SprintNetError where the
    disk is full.
    """
    if not (folder / "failures.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
                if not (folder / "failures.json").is_file():
                    _decode(folder, shape, fill, in_turn)
        except Timeout:
            raise DataError(f"{folder}: another process has been decoding for {LOCK_SECONDS / 3600:g} h; end it") from None
    failures = {int(index): cause for index, cause in json.loads((folder / "failures.json").read_text("utf-8")).items()}
    # copy on write: to PyTorch memory that may not be written is a mistake, though nobody writes
    return np.memmap(folder / "images", np.uint8, "c", shape=shape), failures


def forget_others(folder: Path) -> None:
    """Removes the folders beside this one, stores of what is no longer so, but for those that a process is filling."""
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir() and not any(map(_is_held, other.rglob(".*lock"))):
            shutil.rmtree(other, ignore_errors=True)


def _is_held(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return False
    except OSError:  # held, or in a cache that others fill
        return True


def _decode(folder: Path, shape: tuple[int, int, int, int], fill: Fill, in_turn: bool) -> None:
    parts = [slice(start, min(start + PART, shape[0])) for start in range(0, shape[0], PART)]
    _reserve(folder / "images", int(np.prod(shape)))
    _reserve(folder / "done", 4 * len(parts))
    images = np.memmap(folder / "images", np.uint8, "r+", shape=shape)
    done = np.memmap(folder / "done", np.uint32, "r+", shape=(len(parts),))

    def work(number: int) -> None:
        failures = fill(images, parts[number])
        if failures:
            write_atomic(folder / f"failures-{number}.json", json.dumps(failures))
        done[number] = zlib.crc32(images[parts[number]].data)  # the disk may get it before the pixels, and power may fail
        release(images)

    left = [number for number, part in enumerate(parts) if not done[number] or done[number] != zlib.crc32(images[part].data)]
    with ThreadPoolExecutor(1 if in_turn else os.cpu_count()) as pool:
        try:
            for _ in track(pool.map(work, left), len(left), f"decoding {shape[0]:,} pictures"):
                pass
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    images.flush()
    found = sorted(folder.glob("failures-*.json"))
    merged = {index: cause for file in found for index, cause in json.loads(file.read_text("utf-8")).items()}
    write_atomic(folder / "failures.json", json.dumps(merged))
    for file in (*found, folder / "done"):
        file.unlink()


def _reserve(file: Path, size: int) -> None:
    """Makes sure that the disk has room: a write into a mapped file on a full disk would kill the process."""
    with file.open("a+b") as stream:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, max(size, 1))
            else:
                for start in range(stream.seek(0, os.SEEK_END), size, BLOCK_BYTES):
                    stream.write(bytes(min(BLOCK_BYTES, size - start)))
        except OSError as error:
            file.unlink()
            raise SprintNetError(
                f"{file.parent}: no room for {size / 1e6:,.0f} MB ({error.strerror}); free some, or set SPRINTNET_CACHE to "
                "a folder on another disk"
            ) from None
