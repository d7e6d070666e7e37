"""The contents and problems of a dataset, as lines for the terminal."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sprintnet.reporting.text.names import plain
from sprintnet.reporting.text.table import table_lines

MAX_EXAMPLES = 5
"""Problems shown of each kind; the table of --output has all of them."""
MAX_SHOWN_CLASSES = 30
SEVERITIES = {
    "error": "must be fixed",
    "skippable": "must be fixed, or skipped with data.skip_bad=true",
    "note": "for information",
}


def checked_lines(
    name: str,
    classes: Sequence[str],
    images: Mapping[str, int],
    counts: Mapping[str, Sequence[int]],
    kinds: Mapping[str, Mapping[str, int]],
    notes: Sequence[str],
    problems: Sequence[Mapping[str, str]],
) -> Iterator[str]:
    """Yields the output of `sprintnet check`: contents, images by class, then problems, most severe first."""
    yield f"{name}: {sum(images.values()):,} labelled images of {len(classes)} classes"
    for kind, found in kinds.items():
        shown = [f"{value} ({count:,})" for value, count in Counter(found).most_common(MAX_EXAMPLES)]
        if shown:
            yield f"{kind}: {', '.join(shown)}" + _more(len(found), MAX_EXAMPLES, " ")
    yield from notes
    yield ""
    rows = [
        [label, *(f"{values[index]:,}" for values in counts.values())]
        for index, label in enumerate(classes[:MAX_SHOWN_CLASSES])
    ]
    *lines, total = table_lines(["class", *counts], [*rows, ["all", *(f"{count:,}" for count in images.values())]])
    yield from lines
    yield from filter(None, [_more(len(classes), MAX_SHOWN_CLASSES)])
    yield total
    if not problems:
        yield "\nno problems found"
    for severity, title in SEVERITIES.items():
        by_kind: dict[str, list[Mapping[str, str]]] = {}
        for problem in problems:
            if problem["severity"] == severity:
                by_kind.setdefault(problem["kind"], []).append(problem)
        if by_kind:
            yield f"\n{title}:"
        for kind, same in by_kind.items():
            yield f"  {kind} ({len(same):,})"
            yield from (f"    {plain(problem['path'])}: {plain(problem['text'])}" for problem in same[:MAX_EXAMPLES])
            yield from filter(None, [_more(len(same), MAX_EXAMPLES, "    ")])


def _more(count: int, shown: int, indent: str = "") -> str:
    return f"{indent}and {count - shown:,} more" if count > shown else ""
