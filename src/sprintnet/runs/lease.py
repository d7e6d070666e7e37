"""The lease of a run folder: one process trains there, also where hosts share the folder but not their locks."""

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import SoftFileLease, Timeout

LEASE_SECONDS = 30.0
"""A process on another host that has given no sign of life for so long counts as ended."""


def lease_of(file: Path) -> SoftFileLease:
    """Returns a lease, not yet acquired, that a file records: of a process of this host, which is looked up, or of one of
    another, which must renew it."""
    return SoftFileLease(file, lease_duration=LEASE_SECONDS, thread_local=False)


def acquire(lease: SoftFileLease, log: Callable[[str], None]) -> None:
    """Acquires a lease. A holder that cannot be looked up is watched until its lease has run out; raises Timeout if it lives.

    A process that was killed between creating its file and writing its record has left an empty one, which filelock takes for
    a lease without end. A living process fills it in that time: also on NFS, whose clients send what was written late.
    """
    try:
        lease.acquire(blocking=False)
    except Timeout as error:
        _, _, holder = str(error).partition("It is held by ")  # names only a holder that cannot be looked up
        if not holder:
            raise
        file = Path(lease.lock_file)
        owner = "a process that left no record" if is_empty(file) else holder.partition(",")[0]
        log(f"{file.parent}: was left by {owner}, or it still trains here: waiting {LEASE_SECONDS:.0f} s for a sign of life")
        try:
            lease.acquire(timeout=LEASE_SECONDS + 5, poll_interval=1)
        except Timeout:
            if not is_empty(file):
                raise
            _remove_empty(file)
            lease.acquire(blocking=False)


def is_empty(file: Path) -> bool:
    """Returns whether the file of a lease is there and has no record."""
    with suppress(OSError):
        return not file.read_bytes()  # its size may be an old one, where another host writes it
    return False


def _remove_empty(file: Path) -> None:
    """Removes an empty file; one that another process has put in its place meanwhile is put back."""
    aside = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    with suppress(OSError):
        file.rename(aside)
        if not is_empty(aside):
            file.hardlink_to(aside)
        aside.unlink()
