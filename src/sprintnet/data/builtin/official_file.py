"""Files known by size and digest: how they are found in a source, verified and kept in the cache."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sprintnet.errors import DataError

Members = Mapping[str, Callable[[], bytes]]
"""The files of a folder or archive: base name -> function that reads the content."""


@dataclass(frozen=True)
class OfficialFile:
    """A file whose content is known to the byte."""

    name: str
    size: int
    sha256: str
    md5: str = ""
    """As published; empty: not published."""
    pickle_md5: str = ""
    """For CIFAR: MD5 of the same batch in the Python (pickle) version."""
    aliases: tuple[str, ...] = ()
    """Other names for the same content."""
    is_gzipped: bool = False
    """Whether the cache keeps the file compressed; size and digests are those of the uncompressed content."""

    @property
    def cached_name(self) -> str:
        """The file's name in the cache."""
        return f"{self.name}.gz" if self.is_gzipped else self.name

    def find(self, members: Members) -> bytes:
        """Returns the content from a folder or archive, decompressed; raises DataError if it is missing."""
        for name in (self.name, *self.aliases):
            if name in members:
                return members[name]()
            if f"{name}.gz" in members:
                return self._decompress(members[f"{name}.gz"]())
        raise DataError(f"contains no {self.name}")

    def verify(self, content: bytes) -> bytes:
        """Returns the content; raises DataError if its size, MD5 or SHA-256 differs."""
        if len(content) != self.size:
            raise DataError(f"{self.name} has {len(content):,} bytes, not {self.size:,}")
        if self.md5:
            check_md5(self.name, content, self.md5)
        return self._verify_sha256(content)

    def pack(self, content: bytes) -> bytes:
        """Returns the content as the cache stores it."""
        return gzip.compress(content, 6, mtime=0) if self.is_gzipped else content

    def unpack(self, cached: bytes) -> bytes:
        """Returns the content of a cached file, verified by SHA-256 alone, which takes a third of the time of `verify`.

        Raises DataError if the file is damaged.
        """
        try:
            return self._verify_sha256(self._decompress(cached) if self.is_gzipped else cached)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.cached_name} cannot be decompressed ({error})") from None

    def _decompress(self, content: bytes) -> bytes:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return file.read(self.size + 1)  # one byte too many is enough to refuse a gzip bomb

    def _verify_sha256(self, content: bytes) -> bytes:
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise DataError(f"{self.name} has SHA-256 {digest}, not {self.sha256}")
        return content


def find_all(files: Iterable[OfficialFile], members: Members) -> dict[str, bytes]:
    """Returns the verified files (name -> content) from a folder or archive that contains them, plain or gzipped.

    Raises DataError if a file is missing or a digest differs.
    """
    return {file.name: file.verify(file.find(members)) for file in files}


def check_md5(name: str, content: bytes, md5: str) -> None:
    """Raises DataError unless the content has this MD5."""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if digest != md5:
        raise DataError(f"{name} has MD5 {digest}, not {md5}")
