"""The table of the named data sets as lines of text."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any


def dataset_lines(named: Mapping[str, Any], cached: Collection[str]) -> Iterator[str]:
    """Yields what is known of each data set: its size, whether the cache has it, and who else does."""
    yield f"{'name':13}  {'train':>7}  {'test':>7}  {'size':>7}  {'classes':>7}  cached"
    for name, known in named.items():
        height, width, channels = known.image_shape
        train, test = known.images
        yield (
            f"{name:13}  {train:7,}  {test:7,}  {f'{width}x{height}x{channels}':>7}  {len(known.classes):7}  "
            f"{'yes' if name in cached else 'no'}"
        )
        yield f"  {known.note}"
        yield from (f"  from {source.label}" for source in known.sources)
