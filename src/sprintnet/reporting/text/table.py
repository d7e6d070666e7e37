"""Tables as plain text: aligned, never wrapped, the same on a terminal and in a file."""

import io
from collections.abc import Iterable, Iterator, Sequence

from sprintnet.reporting.text.names import plain

MAX_LINE = 100_000


def table_lines(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yields the lines of a table; the first column is left-aligned, the others right-aligned. Cells are shown by `plain`."""
    from rich.console import Console  # not above: commands without a table start faster
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, header in enumerate(headers):
        table.add_column(Text(plain(header)), justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))  # Text: markup in a name is shown, not interpreted
    console = Console(file=io.StringIO(), width=MAX_LINE, color_system=None, force_terminal=False, force_jupyter=False)
    with console.capture() as capture:
        console.print(table)
    yield from map(str.rstrip, capture.get().splitlines())
