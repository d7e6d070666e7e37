"""The contents and problems of a dataset, as lines for the terminal."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from sprintnet.reporting.text.names import plain
from sprintnet.reporting.text.table import table_lines

MAX_EXAMPLES = 5  # problems shown of each kind; the table of --output has all of them
MAX_SHOWN_CLASSES = 30
SEVERITIES = {
    "error": "must be fixed",
    "skippable": "must be fixed, or skipped with data.skip_bad=true",
    "warning": "most likely wrong: look at these before training",
    "note": "for information",
}


def checked_lines(name: str, found: Any) -> Iterator[str]:
    """Yields the contents of a dataset, images by class, then problems, most severe first (`data.validate.Findings`)."""
    yield f"{name}: {sum(found.images.values()):,} labelled images of {len(found.classes)} classes"
    for kind, values in found.kinds.items():
        counted = [f"{value} ({count:,})" for value, count in Counter(values).most_common()]
        if counted:
            yield f"{kind}: {', '.join(_first(counted, MAX_EXAMPLES))}"
    yield from found.notes
    yield ""
    rows = zip(found.classes, *found.counts.values(), strict=True)
    cells = [[name, *(f"{count:,}" for count in counts)] for name, *counts in [*rows, ("all", *found.images.values())]]
    header, *lines, total = table_lines(["class", *found.counts], cells)
    yield from (header, *_first(lines, MAX_SHOWN_CLASSES), total)
    if not found.problems:
        yield "\nno problems found"
    for severity, title in SEVERITIES.items():
        by_kind: dict[str, list[str]] = {}
        for problem in found.problems:
            if problem.severity == severity:
                by_kind.setdefault(problem.kind, []).append(f"    {plain(problem.path)}: {plain(problem.text)}")
        if by_kind:
            yield f"\n{title}:"
        for kind, lines in by_kind.items():
            yield f"  {kind} ({len(lines):,})"
            yield from _first(lines, MAX_EXAMPLES, "    ")


def _first(texts: Sequence[str], count: int, indent: str = "") -> Iterator[str]:
    """Yields the first texts, then how many more there are."""
    yield from texts[:count]
    if len(texts) > count:
        yield f"{indent}and {len(texts) - count:,} more"
