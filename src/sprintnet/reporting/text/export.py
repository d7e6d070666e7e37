"""The table of exported files as lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any


def parity_lines(table: Mapping[str, Any]) -> Iterator[str]:
    """Yields parity.json's table: each file's size, how it answers beside the trained network, and how fast, PyTorch's too."""
    yield f"{'':16}  {'':>8}  {'':>8}  {'same':>7}  {'largest':>10}  {'one image, ms':>14}  {'images/s':>8}"
    yield f"{'':16}  {'size':>8}  {'accuracy':>8}  {'answer':>7}  {'difference':>10}  {'median':>6}  {'p99':>6}  {'by 256':>8}"
    for name, row in table["files"].items():
        yield (
            f"{name:16}  {row['bytes'] / 1e6:5.1f} MB  {row['accuracy']:8.2%}  {row['agreement']:7.2%}  "
            f"{row['largest_difference']:10.1e}  {_speed(row)}"
        )
    for name, row in table["pytorch"].items():
        yield f"{name:16}  {'':8}  {'':8}  {'':7}  {'':10}  {_speed(row)}"


def _speed(row: Mapping[str, float]) -> str:
    return f"{row['ms_1']:6.2f}  {row['ms_p99_1']:6.2f}  {row['images_per_second_256']:8,.0f}"
