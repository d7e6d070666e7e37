"""The parity table of exported files, as lines for the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from sprintnet.reporting.text.table import table_lines


def parity_lines(table: Mapping[str, Any]) -> Iterator[str]:
    """Yields parity.json's table: size, accuracy, agreement with PyTorch and speed of each file, and PyTorch's speed."""
    rows = []
    for name, row in [*table["files"].items(), *table["pytorch"].items()]:
        cells = ["", "", "", "", ""]
        if "bytes" in row:
            shares = [f"{share:.2%}" for share in (row["accuracy"], row["metrics"]["ece"], row["agreement"])]
            cells = [f"{row['bytes'] / 1e6:.1f}", *shares, f"{row['largest_difference']:.1e}"]
        speed = [f"{row['ms_1']:.2f}", f"{row['ms_p99_1']:.2f}", f"{row['images_per_second_256']:,.0f}"]
        rows.append([name, *cells, *speed])
    yield from table_lines(["file", "MB", "accuracy", "ECE", "agreement", "max. diff.", "ms/image", "p99", "images/s"], rows)
    yield "accuracy and ECE: of the file, in fp32 unless its name says otherwise; the run's are in that of its training"
    yield "agreement and max. diff. (of a probability): against PyTorch; ms/image: batch size 1; images/s: batch size 256"
