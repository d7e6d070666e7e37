"""A progress bar on a terminal; nothing elsewhere."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

Item = TypeVar("Item")


def track(items: Iterable[Item], total: int, label: str, done: int = 0) -> Iterator[Item]:
    """Passes items on; a terminal shows how many of `total` have gone by (`done` before these) and how long the rest takes."""
    return _track(items, total, label, (MofNCompleteColumn(), TimeRemainingColumn()), lambda _: 1, done)


def track_bytes(chunks: Iterable[bytes], total: int, label: str) -> Iterator[bytes]:
    """Passes chunks on; a terminal shows how many of `total` bytes (0: unknown) have gone by, and how fast."""
    return _track(chunks, total, label, (DownloadColumn(), TransferSpeedColumn()), len)


def _track(
    items: Iterable[Item],
    total: int,
    label: str,
    columns: tuple[ProgressColumn, ...],
    size: Callable[[Item], int],
    done: int = 0,
) -> Iterator[Item]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    with Progress(TextColumn(label), BarColumn(), *columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(label, total=total or None, completed=done)
        for item in items:
            yield item
            progress.advance(task, size(item))
