"""What is found in a data set, as lines."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sprintnet.reporting.text.names import plain

MAX_LISTED = 5
"""Problems of a kind, and classes at either end of a long list; a table (--output) has them all."""
MAX_CLASSES = 30
SEVERITIES = {"stop": "must be mended", "skip": "must be mended, or left out by data.skip_bad=true", "note": "good to know"}


def checked_lines(
    name: str,
    classes: Sequence[str],
    images: Mapping[str, int],
    counts: Mapping[str, Sequence[int]],
    kinds: Mapping[str, Mapping[str, int]],
    notes: Sequence[str],
    problems: Sequence[Mapping[str, str]],
) -> Iterator[str]:
    """Yields the lines of `sprintnet check`: what there is, then the problems, most severe first."""
    yield f"{name}: {sum(images.values()):,} labelled pictures of {len(classes)} classes"
    for kind, found in kinds.items():
        shown = [f"{value} ({count:,})" for value, count in Counter(found).most_common(MAX_LISTED)]
        more = f" and {len(found) - MAX_LISTED:,} more" if len(found) > MAX_LISTED else ""
        if shown:
            yield f"{kind}: {', '.join(shown)}{more}"
    yield from notes
    width = max(map(len, ["class", *map(plain, classes[:MAX_CLASSES])]))
    yield f"\n{'class':{width}}" + "".join(f"  {split:>9}" for split in counts)
    for index, label in enumerate(classes[:MAX_CLASSES]):
        yield f"{plain(label):{width}}" + "".join(f"  {values[index]:9,}" for values in counts.values())
    if len(classes) > MAX_CLASSES:
        yield f"and {len(classes) - MAX_CLASSES:,} more"
    yield f"{'all':{width}}" + "".join(f"  {count:9,}" for count in images.values())
    if not problems:
        yield "\nnothing is wrong"
    for severity, remedy in SEVERITIES.items():
        by_kind: dict[str, list[Mapping[str, str]]] = {}
        for problem in problems:
            if problem["severity"] == severity:
                by_kind.setdefault(problem["kind"], []).append(problem)
        if by_kind:
            yield f"\n{remedy}:"
        for kind, same in by_kind.items():
            yield f"  {kind} ({len(same):,})"
            yield from (f"    {plain(problem['path'])}: {plain(problem['text'])}" for problem in same[:MAX_LISTED])
            if len(same) > MAX_LISTED:
                yield f"    and {len(same) - MAX_LISTED:,} more"
