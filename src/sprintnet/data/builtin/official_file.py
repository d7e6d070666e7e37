"""An official file of a data set: what its bytes must be, under which names a source may hold it, how the cache keeps it."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sprintnet.errors import DataError

Members = Mapping[str, Callable[[], bytes]]
"""What a folder or archive holds: base name -> a function that returns the content."""


@dataclass(frozen=True)
class OfficialFile:
    """A file that is known to the byte."""

    name: str
    size: int
    md5: str
    sha256: str
    aliases: tuple[str, ...] = ()
    """Other names under which sources hold the same bytes."""
    gzipped: bool = False
    """Whether the cache keeps it compressed; the digests are those of the content."""

    @property
    def cached_name(self) -> str:
        """The file's name in the cache."""
        return f"{self.name}.gz" if self.gzipped else self.name

    def find(self, members: Members) -> bytes:
        """Returns the content, which may be kept compressed, from a folder or archive; raises DataError where it is missing."""
        for name in (self.name, *self.aliases):
            if name in members:
                return members[name]()
            if f"{name}.gz" in members:
                return self._decompress(members[f"{name}.gz"]())
        raise DataError(f"holds no {self.name}")

    def verify(self, content: bytes) -> bytes:
        """Returns the content if its size, MD5 and SHA-256 are the file's; raises DataError otherwise."""
        if len(content) != self.size:
            raise DataError(f"{self.name} has {len(content):,} bytes, not {self.size:,}")
        check_md5(self.name, content, self.md5)
        return self._verify_sha256(content)

    def pack(self, content: bytes) -> bytes:
        """Returns what the cache keeps."""
        return gzip.compress(content, 6, mtime=0) if self.gzipped else content

    def unpack(self, cached: bytes) -> bytes:
        """Returns the content of what the cache keeps, verified by SHA-256 alone: a third of `verify`'s time.

        Raises DataError where it is damaged.
        """
        try:
            return self._verify_sha256(self._decompress(cached) if self.gzipped else cached)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self.cached_name} cannot be decompressed ({error})") from None

    def _decompress(self, content: bytes) -> bytes:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return file.read(self.size + 1)  # a byte too many is enough to be refused, however much follows

    def _verify_sha256(self, content: bytes) -> bytes:
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise DataError(f"{self.name} has SHA-256 {found}, not {self.sha256}")
        return content


def find_all(files: Iterable[OfficialFile], members: Members) -> dict[str, bytes]:
    """Returns the files (name -> verified bytes) from a folder or archive that holds them as they are, or gzipped.

    Raises DataError where one is missing or a digest differs.
    """
    return {file.name: file.verify(file.find(members)) for file in files}


def check_md5(name: str, content: bytes, md5: str) -> None:
    """Raises DataError unless the content has this MD5."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(f"{name} has MD5 {found}, not {md5}")
