"""Shards: part K of N of a list, for the K-th of N processes that share it."""

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from sprintnet.errors import ArgumentError

Item = TypeVar("Item")
RULE = "must be K/N with K from 1 to N"


def part_of(text: str) -> tuple[int, int] | None:
    """Returns K and N of `K/N`, None unless K is from 1 to N."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    return (int(found[1]), int(found[2])) if found and 1 <= int(found[1]) <= int(found[2]) else None


def parse_shard(text: str) -> tuple[int, int]:
    """Returns K and N of the argument `shard`; raises ArgumentError unless K is from 1 to N."""
    if not (part := part_of(text)):
        raise ArgumentError("shard", text, f"{RULE}, such as 3/16")
    return part


def shard(items: Iterable[Item], part: int, parts: int) -> Iterator[Item]:
    """Yields every `parts`-th item, from number `part` on; all shards together are all items, each once."""
    return itertools.islice(items, part - 1, None, parts)
