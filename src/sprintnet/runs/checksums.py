"""checksums.txt of a run folder: the SHA-256 of each file that a finished run consists of, as `sha256sum` writes it.

Readers compare what they read, so a changed bit is named instead of shown.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from sprintnet.runs.io import write_atomic

FILE = "checksums.txt"


def write_checksums(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes the checksums of files of a folder, given by name and content; they replace all earlier ones."""
    lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(contents.items()))
    write_atomic(folder / FILE, "".join(lines))


def update_checksum(path: Path) -> None:
    """Takes a file that a command has changed into the checksums of its folder, where there are any."""
    if found := read_checksums(path.parent):
        lines = {**found, path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
        write_atomic(path.parent / FILE, "".join(f"{digest}  {name}\n" for name, digest in sorted(lines.items())))


def require_unchanged(path: Path) -> None:
    """Raises ValueError where a file's content differs from its checksum; a file without one is not checked."""
    expected = read_checksums(path.parent).get(path.name)
    if expected is not None and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise ValueError(f"its content does not match {FILE}, where its line can be removed if it was changed on purpose")


def read_checksums(folder: Path) -> dict[str, str]:
    """Returns the checksum of each file (name -> SHA-256); nothing where the folder has no checksums."""
    try:
        lines = (folder / FILE).read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
