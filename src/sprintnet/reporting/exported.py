"""The table of exported files as lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any


def parity_lines(table: Mapping[str, Any]) -> Iterator[str]:
    """Yields parity.json's table: each file's size, how it answers beside the trained network, and how fast, PyTorch's too."""
    yield f"{'':16}  {'':>8}  {'':>8}  {'same':>8}  {'largest':>10}  {'images/s':>8}  {'images/s':>8}"
    yield f"{'':16}  {'size':>8}  {'accuracy':>8}  {'class':>8}  {'difference':>10}  {'by 1':>8}  {'by 256':>8}"
    for name, row in table["files"].items():
        yield (
            f"{name:16}  {row['bytes'] / 1e6:5.1f} MB  {row['accuracy']:8.2%}  {row['agreement']:8.2%}  "
            f"{row['largest_difference']:10.1e}  {_speeds(row)}"
        )
    for name, row in table["pytorch"].items():
        accuracy = next(iter(table["files"].values()))["network_accuracy"] if name == "PyTorch fp32" else None
        yield f"{name:16}  {'':8}  {'' if accuracy is None else f'{accuracy:.2%}':>8}  {'':8}  {'':10}  {_speeds(row)}"


def _speeds(row: Mapping[str, float]) -> str:
    return f"{row['images_per_second_1']:8,.0f}  {row['images_per_second_256']:8,.0f}"
