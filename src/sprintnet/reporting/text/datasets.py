"""The built-in datasets, as lines for the terminal."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sprintnet.reporting.text.table import table_lines


def dataset_lines(builtin: Mapping[str, Any], cached: Collection[str]) -> Iterator[str]:
    """Yields the size of each dataset and whether it is cached; below its row a note and its sources."""
    rows = []
    for name, dataset in builtin.items():
        height, width, channels = dataset.image_shape
        counts = [f"{count:,}" for count in dataset.images]
        cell = "yes" if name in cached else "no"
        rows.append([name, *counts, f"{width}x{height}x{channels}", str(len(dataset.classes)), cell])
    header, *lines = table_lines(["name", "train", "test", "image size", "classes", "cached"], rows)
    yield header
    for line, dataset in zip(lines, builtin.values(), strict=True):
        yield line
        yield f"  {dataset.note}"
        yield from (f"  from {source.label}" for source in dataset.sources)
