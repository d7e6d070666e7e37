"""checksums.txt of a run folder: the SHA-256 of each file that a finished run consists of, as `sha256sum` writes it.

Readers compare what they read, so a changed bit is named instead of shown. The last line is the digest of those above.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from sprintnet.runs.io import write_atomic

FILE = "checksums.txt"
LAST = "# the lines above: "


def write_checksums(folder: Path, files: Iterable[Path], more: Mapping[str, bytes]) -> None:
    """Writes the checksums of files of a folder, and of `more` that are about to be written, by name and content."""
    digests = {file.name: _digest(file) for file in files}
    digests |= {name: hashlib.sha256(content).hexdigest() for name, content in more.items()}
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    write_atomic(folder / FILE, f"{text}{LAST}{hashlib.sha256(text.encode()).hexdigest()}\n")


def require_unchanged(path: Path) -> None:
    """Raises ValueError where a file's content differs from its checksum, or the checksums are damaged. A file without one, as
    those of unfinished runs, is not checked."""
    digests = _read(path.parent)
    if path.name in digests and _digest(path) != digests[path.name]:
        raise ValueError(f"its content does not match {FILE}, which can be removed if the change was meant")


def names(folder: Path) -> set[str]:
    """Returns the files that checksums.txt lists; raises ValueError where it is damaged."""
    return set(_read(folder))


def _read(folder: Path) -> dict[str, str]:
    """Returns the digest of each file; empty without checksums.txt."""
    try:
        content = (folder / FILE).read_text("utf-8", "replace")
    except FileNotFoundError:
        return {}
    text, separator, digest = content.rpartition(LAST)
    if not separator or hashlib.sha256(text.encode()).hexdigest() != digest.removesuffix("\n"):
        raise ValueError(f"cannot be checked: {FILE} was changed (its last line says so); remove it to go without")
    return {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines())}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
