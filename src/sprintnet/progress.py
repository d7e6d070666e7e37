"""Progress bars on a terminal and in a notebook; silent elsewhere."""

import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], total: int, label: str, done: int = 0) -> Iterator[Item]:
    """Yields the items; shows how many of `total` are done, `done` of them before the first item, and the time left."""
    yield from _progress_bar(items, desc=label, total=total, initial=done)


def track_bytes(chunks: Iterable[bytes], total: int, label: str) -> Iterator[bytes]:
    """Yields the chunks; shows how many of `total` bytes (0: unknown) have passed, and the rate."""
    with _progress_bar(desc=label, total=total or None, unit="B", unit_scale=True) as bar:
        for chunk in chunks:
            yield chunk
            bar.update(len(chunk))


def _progress_bar(*items: Iterable[Any], **options: Any) -> Any:
    """Returns tqdm's widget in a notebook with ipywidgets, else its text bar, hidden unless stderr is a terminal."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    is_notebook = "IPKernelApp" in getattr(get_ipython(), "config", ())
    if is_notebook and find_spec("ipywidgets"):  # without it, tqdm's widget warns
        from tqdm.notebook import tqdm
    else:
        from tqdm import tqdm  # not above: slows down --help
    return tqdm(*items, **options, leave=False, disable=False if is_notebook else None)
