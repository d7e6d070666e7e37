"""Progress bars on a terminal and in a notebook, silent elsewhere; lines that are printed while a bar is shown; estimates."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeVar

Item = TypeVar("Item")
SAID_SECONDS = 20.0  # steps that take longer are announced


def track(items: Iterable[Item], total: int, label: str, done: int = 0, images: int = 0) -> Iterator[Item]:
    """Yields the items; shows how many of `total` are done, `done` of them before the first item, the time left, and the rate.

    Where items are batches of so many `images`, the rate is in images per second.
    """
    yield from _progress_bar(items, images, desc=label, total=total, initial=done)


def track_bytes(chunks: Iterable[bytes], total: int, label: str) -> Iterator[bytes]:
    """Yields the chunks; shows how many of `total` bytes (0: unknown) have passed, and the rate."""
    with _progress_bar(None, 0, desc=label, total=total or None, unit="B", unit_scale=True) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))


def say(line: str) -> None:
    """Prints a line above the bar, if one is shown."""
    if bars := sys.modules.get("tqdm"):
        bars.tqdm.write(line)
        sys.stdout.flush()
    else:
        print(line, flush=True)


def announce(what: str, seconds: float, log: Callable[[str], object] | None = None) -> None:
    """Prints an estimate of the time that a step will take, by `log` or on stderr, if that is more than SAID_SECONDS."""
    if seconds > SAID_SECONDS:
        (log or _say_on_stderr)(f"{what}: about {rough_time(seconds)}")


def rough_time(seconds: float) -> str:
    """Returns estimated seconds as text, such as `45 s`, `12 min` or `3.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _say_on_stderr(line: str) -> None:
    """Prints a line above the bar, where stdout is for results."""
    if bars := sys.modules.get("tqdm"):
        bars.tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


def _progress_bar(items: Iterable[Any] | None, images: int, **options: Any) -> Any:
    """Returns tqdm's widget in a notebook with ipywidgets, else its text bar, hidden unless stderr is a terminal that can move
    its cursor."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    is_notebook = "IPKernelApp" in getattr(get_ipython(), "config", ())
    if is_notebook and find_spec("ipywidgets"):  # without it, tqdm's widget warns
        from tqdm.notebook import tqdm
    else:
        from tqdm import tqdm  # not above: slows down --help
    if images:
        options["bar_format"] = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {images}]"
    is_hidden = False if is_notebook else os.environ.get("TERM") == "dumb" or None  # None: unless stderr is a terminal
    bar = _bar_class(tqdm)(items, **options, leave=False, disable=is_hidden, dynamic_ncols=True)
    bar.images = images
    return bar


@cache
def _bar_class(base: Any) -> Any:
    """Returns one class for all bars of a kind: each class of tqdm's has a thread that watches its bars."""

    class Bar(base):  # type: ignore[misc]
        """A bar that can show the images per second."""

        images = 0

        @property
        def format_dict(self) -> dict[str, Any]:
            facts: dict[str, Any] = super().format_dict
            if self.disable:
                return facts
            rate = facts["rate"] or (facts["n"] - facts["initial"]) / (facts["elapsed"] or 1)
            return {**facts, "images": f"{rate * self.images:,.0f} images/s"}

    return Bar
