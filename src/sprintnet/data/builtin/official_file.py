"""Files known by size and SHA-256: how they are found in a source and verified."""

import gzip
import hashlib
import io
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
    """Returns the verified files (name -> content) from a folder or archive that contains them, plain or gzipped.
    Raises DataError if a file is missing or a digest differs."""
    return {file.name: file.verify(file.find(members)) for file in files}
