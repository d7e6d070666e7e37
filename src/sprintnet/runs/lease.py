"""The lease of a run folder: one process trains there, also where hosts share the folder but not their locks."""

import time
from contextlib import suppress
from pathlib import Path

from filelock import SoftFileLease

LEASE_SECONDS = 30.0
"""A run's process on another host that has given no sign of life for so long counts as ended."""
NAMELESS_SECONDS = 2.0
"""A process writes its name into the file within moments of creating it; after so long without a name it was killed."""


def lease_of(file: Path) -> SoftFileLease:
    """Returns a lease, not yet acquired, that is kept in a file: of a process of this host, which is looked up, or of one of
    another, which must renew it. A file without a name, which filelock would wait for without end, is removed."""
    with suppress(FileNotFoundError):
        _remove_nameless(file)
    return SoftFileLease(file, lease_duration=LEASE_SECONDS, thread_local=False)


def _remove_nameless(file: Path) -> None:
    """Removes a file that stays without a name. It is read, as other hosts' file systems keep old sizes for a while."""
    first, started = file.stat(), time.monotonic()
    while not file.read_bytes():
        if time.monotonic() - started > NAMELESS_SECONDS:
            now = file.stat()
            if (now.st_ino, now.st_ctime_ns) == (first.st_ino, first.st_ctime_ns):
                file.unlink()
            return
        time.sleep(0.05)
