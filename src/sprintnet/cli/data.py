"""What the verbs about data do; each imports what it needs when it runs."""

import argparse
from pathlib import Path

from sprintnet.cli.args import DEFAULT_RECIPE, check_folder_of, overrides_in, refuse


def data(options: argparse.Namespace, words: list[str]) -> None:
    """Lists the named data sets, or puts one into the cache."""
    refuse(words)
    from sprintnet.data.builtin.cache import fetch, is_cached
    from sprintnet.runs.io import cache_folder

    if options.action == "list":
        from sprintnet.data.builtin.registry import BUILTIN_DATASETS
        from sprintnet.reporting.text.datasets import dataset_lines

        print(*dataset_lines(BUILTIN_DATASETS, {name for name in BUILTIN_DATASETS if is_cached(name)}), sep="\n")
        return
    files = fetch(options.dataset, options.source)
    print(f"{options.dataset}: {sum(map(len, files.values())):,} bytes in {cache_folder() / options.dataset}")


def check(options: argparse.Namespace, words: list[str]) -> None:
    """Looks for all that is wrong with a data set, and says what there is."""
    overrides = overrides_in(words)
    check_folder_of(options.output)
    from sprintnet.config import load_config
    from sprintnet.data import validate
    from sprintnet.data.custom.manifest import Problem
    from sprintnet.errors import DataError
    from sprintnet.reporting.text.validation import checked_lines
    from sprintnet.runs.io import write_rows

    settings = load_config(DEFAULT_RECIPE, [f"data.name={options.data}", *overrides]).data
    found = validate.check(settings)
    rows = [problem._asdict() for problem in found.problems]
    print(*checked_lines(options.data, found), sep="\n")
    if options.output:
        write_rows(Path(options.output), rows, Problem._fields)
        print(f"\na row a problem: {options.output}")
    if wrong := sum(row["severity"] != "note" for row in rows):
        raise DataError(f"{options.data}: {wrong:,} problem{'s' if wrong > 1 else ''} to fix before training, listed above")
