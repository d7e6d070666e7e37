"""Decode cache: the decoded images of a source in a memory-mapped file, and JSON files computed from it."""

import errno
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from sprintnet.data.dataset import Images, advise
from sprintnet.data.images import DECODER_VERSION
from sprintnet.errors import DataError, SprintNetError
from sprintnet.progress import announce, track
from sprintnet.runs.cores import available_cores
from sprintnet.runs.io import cache_folder, remove_temporary, write_atomic

CHUNK_SIZE = 256  # images that are decoded, and logged as done with their CRC-32, together
RESERVE_BYTES = 1 << 24
LOCK_NAME, DECODE_LOCK_SECONDS = ".lock", 6 * 3600.0
IMAGES, DECODED = "images", "decoded.json"  # the pixels; failures and the CRC-32 of each chunk, written at the end
DONE = "done.jsonl"  # a line a chunk, until all are done

Shape = tuple[int, int, int, int]
Value = TypeVar("Value")
Failures = dict[int, str]  # index of an image that could not be decoded, whose pixels are 0 -> cause
DecodeChunk = Callable[[Images, slice], tuple[Failures, bool]]
"""Decodes a slice of the images into the array; returns the failures, and whether they are permanent."""


class DecodeCache:
    """What was computed from one state of a source: <cache>/decoded/<source>/<state>/<variant>/images, and JSON.
    One process computes while others wait; what was damaged since is computed again, and `notes` says so. Errors, as on a full
    disk, are SprintNetErrors."""

    def __init__(self, source: Path, fingerprint: str):
        self.notes: list[str] = []
        self._source_folder = cache_folder() / "decoded" / hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
        self._folder = self._source_folder / f"{fingerprint}-{DECODER_VERSION}"

    def images(self, variant: str, shape: Shape, decode: DecodeChunk, is_sequential: bool = False) -> tuple[Images, Failures]:
        """Returns the decoded images (N, H, W, C), memory-mapped, and the failures. The first call decodes, on all cores
        unless `is_sequential`. After a kill, the next call continues; it also retries failures that are not permanent."""
        folder = self._folder / variant

        def read() -> tuple[Images, Failures]:
            found = _read_json(folder / DECODED)
            if (folder / IMAGES).stat().st_size != max(int(np.prod(shape)), 1):
                raise _DamagedError
            images, checksums, parts = _map(folder, shape), [], _chunks(shape[0])
            for part in track(parts, len(parts), f"checking {len(images):,} decoded images"):
                checksums.append(zlib.crc32(images[part].data))
                advise(images, "MADV_DONTNEED")
            if checksums != found["checksums"]:
                raise _DamagedError
            return images, {int(index): cause for index, cause in found["failures"].items()}

        return self._read_or_make(folder, read, lambda: _decode(folder, shape, decode, is_sequential))

    def json(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns the content of a JSON file, which the first call computes."""
        file = self._folder / name

        def make() -> Any:
            file.parent.mkdir(parents=True, exist_ok=True)
            _write_json(file, compute())
            return _read_json(file)

        return self._read_or_make(file, lambda: _read_json(file), make)

    def _read_or_make(self, path: Path, read: Callable[[], Value], make: Callable[[], Value]) -> Value:
        """Returns what `read` finds; where there is nothing, or it is damaged, what `make` makes of it at `path`."""
        try:
            with suppress(FileNotFoundError, _DamagedError):
                return read()
            self._source_folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._source_folder / LOCK_NAME, timeout=DECODE_LOCK_SECONDS):
                remove_temporary(self._folder)
                is_damaged = False
                try:
                    return read()  # another process may have made it
                except FileNotFoundError:
                    pass
                except _DamagedError:
                    is_damaged = True
                if is_damaged:  # outside of `except`, which keeps the file mapped: Windows could not remove it
                    self.notes.append(f"{path}: was damaged, computed again")
                    _remove(path)  # never written over: another process may have mapped it
                return make()
        except Timeout:
            hours = f"{DECODE_LOCK_SECONDS / 3600:g} h"
            raise DataError(f"{self._source_folder}: another process has been decoding for {hours}; end it") from None
        except OSError as error:
            raise _disk_error(self._source_folder, "cannot be written", error) from None

    def remove_stale(self) -> None:
        """Removes what was computed from other states of the source, unless a process is at work there."""
        stale = [other for other in self._source_folder.iterdir() if other != self._folder and other.is_dir()]
        if stale:
            with suppress(OSError), FileLock(self._source_folder / LOCK_NAME, timeout=0):  # a Timeout is an OSError
                for folder in stale:
                    shutil.rmtree(folder, ignore_errors=True)


class _DamagedError(Exception):
    """A file of the cache whose content is not what was written."""


def _write_json(file: Path, value: Any) -> None:
    """Writes JSON with its checksum."""
    write_atomic(file, _with_checksum(json.dumps(value)))


def _read_json(file: Path) -> Any:
    return _parse(file.read_text("utf-8", "replace"))


def _with_checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x} {text}"


def _parse(text: str) -> Any:
    checksum, _, content = text.partition(" ")
    if checksum != f"{zlib.crc32(content.encode()):08x}":
        raise _DamagedError
    return json.loads(content)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _chunks(count: int) -> list[slice]:
    return [slice(start, min(start + CHUNK_SIZE, count)) for start in range(0, count, CHUNK_SIZE)]


def _disk_error(folder: Path, what: str, error: OSError) -> SprintNetError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free disk space, or set SPRINTNET_CACHE to a folder on another disk"
    remedy = remedy if is_full else "set SPRINTNET_CACHE to a folder that can be written"
    return SprintNetError(f"{folder}: {what} ({error.strerror}); {remedy}")


def _map(folder: Path, shape: Shape) -> Images:
    return np.memmap(folder / IMAGES, np.uint8, "c", shape=shape)  # copy on write: PyTorch warns of read-only memory


def _decode(folder: Path, shape: Shape, decode: DecodeChunk, is_sequential: bool) -> tuple[Images, Failures]:
    folder.mkdir(parents=True, exist_ok=True)
    _reserve(folder / IMAGES, int(np.prod(shape)))
    images = np.memmap(folder / IMAGES, np.uint8, "r+", shape=shape)
    chunks, workers = _chunks(shape[0]), 1 if is_sequential else available_cores()
    checksums = dict.fromkeys(range(len(chunks)), 0)
    permanent: Failures = {}
    transient: Failures = {}

    def run(number: int) -> tuple[Failures, bool]:
        result = decode(images, chunks[number])
        advise(images, "MADV_DONTNEED")
        return result

    left = set(range(len(chunks)))
    with (
        (folder / DONE).open("a+", encoding="utf-8", errors="replace") as log,
        ThreadPoolExecutor(workers) as pool,
    ):
        log.seek(0)
        for line in log:
            with suppress(_DamagedError):  # of a line cut off by a kill
                number, checksum, failures = _parse(line.rstrip("\n"))
                if number in left and zlib.crc32(images[chunks[number]].data) == checksum:  # the pixels reached the disk
                    left.remove(number)
                    checksums[number] = checksum
                    permanent |= {int(index): cause for index, cause in failures.items()}
        numbers = sorted(left)
        if numbers and not is_sequential:
            count = sum(chunks[number].stop - chunks[number].start for number in numbers)
            what = f"decoding {count:,} images, once, into {cache_folder()} ({images.nbytes / 1e6:,.0f} MB)"
            announce(what, count * _seconds_an_image(images, decode, chunks[numbers[0]]) / min(workers, len(numbers)))
        results = track(pool.map(run, numbers), len(numbers), f"decoding {shape[0]:,} images")
        try:
            for number, (failures, is_permanent) in zip(numbers, results, strict=True):
                (permanent if is_permanent else transient).update(failures)
                checksums[number] = zlib.crc32(images[chunks[number]].data)
                if is_permanent:
                    log.write("\n" + _with_checksum(json.dumps([number, checksums[number], failures])))
                    log.flush()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    images.flush()
    if not transient:
        _write_json(folder / DECODED, {"failures": permanent, "checksums": [*checksums.values()]})
        (folder / DONE).unlink()
    return _map(folder, shape), permanent | transient


def _seconds_an_image(images: Images, decode: DecodeChunk, part: slice) -> float:
    """Returns the time to decode one of the first images of a chunk; 0 where it has fewer than three."""
    if part.stop - part.start < 3:
        return 0.0
    decode(images, slice(part.start, part.start + 1))  # not timed: it may load a decoder
    started = time.monotonic()
    decode(images, slice(part.start + 1, part.start + 3))
    return (time.monotonic() - started) / 2


def _reserve(file: Path, size: int) -> None:
    """Allocates disk space: a write into a mapped file on a full disk would kill the process."""
    try:
        with file.open("a+b") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, max(size, 1))
            else:
                for start in range(stream.seek(0, os.SEEK_END), size, RESERVE_BYTES):
                    stream.write(bytes(min(RESERVE_BYTES, size - start)))
    except OSError as error:
        file.unlink(missing_ok=True)
        raise _disk_error(file.parent, f"no space for {size / 1e6:,.0f} MB", error) from None
