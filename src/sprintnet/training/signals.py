"""SIGINT and SIGTERM are recorded, so that training can save its state and end between two steps."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

from sprintnet.errors import Interrupted

Item = TypeVar("Item")


class Signals:
    """A context in which the first SIGINT or SIGTERM is only recorded; a second one has its usual effect.

    `place` is where the state is saved, for the message.
    """

    def __init__(self, place: Path) -> None:
        self.received = 0
        self.place = place
        self._outside: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # Python delivers signals there only
            for number in (signal.SIGINT, signal.SIGTERM):
                self._outside[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._outside.items():
            signal.signal(number, handler)

    def raise_if_received(self) -> None:
        """Raises Interrupted if a signal was received."""
        if self.received:
            name = signal.Signals(self.received).name
            message = f"{name}: the state is saved in {self.place}; continue with the same command and --resume"
            raise Interrupted(message, self.received)

    def guard(self, items: Iterable[Item], save: Callable[[], None]) -> Iterator[Item]:
        """Yields items until a signal was received; then saves and raises Interrupted."""
        for item in items:
            if self.received:
                save()
            self.raise_if_received()
            yield item

    def _record(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._outside[number])
