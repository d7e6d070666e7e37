"""The commands about data: data, check. Each imports what it needs when it runs."""

from argparse import Namespace
from functools import partial
from pathlib import Path

from sprintnet.cli.args import DEFAULT_RECIPE, check_output
from sprintnet.errors import SettingsError, did_you_mean

ACTIONS = ("list", "fetch")


def data(options: Namespace) -> None:
    """Lists the built-in datasets, or fetches one into the cache."""
    action, name = [*options.names, ""][:2]
    if action not in ACTIONS:
        raise SettingsError(f"data {action}: must be one of {', '.join(ACTIONS)}{did_you_mean(action, ACTIONS)}")
    from sprintnet.data.builtin.cache import fetch, is_cached
    from sprintnet.runs.io import cache_folder

    if action == "list":
        from sprintnet.data.builtin.registry import BUILTIN_DATASETS
        from sprintnet.reporting.text.datasets import dataset_lines

        print(*dataset_lines(BUILTIN_DATASETS, {name for name in BUILTIN_DATASETS if is_cached(name)}), sep="\n")
    else:
        files = fetch(name, options.source)
        print(f"{name}: {sum(map(len, files.values())):,} bytes in {cache_folder() / name}")


def check(options: Namespace) -> None:
    """Checks a dataset for everything that is wrong with it."""
    overrides = [*(f"data={name}" for name in options.names), *options.overrides]
    if not any(override.partition("=")[0] in ("data", "data.name") for override in overrides):
        raise SettingsError("check: DATA is missing; name a folder, a table, an .npz file or a built-in dataset")
    check_output(options.output)
    check_output(options.pairs)
    if options.pairs and not options.pairs.endswith(".png"):
        raise SettingsError(f"--pairs {options.pairs}: must end with .png")
    from sprintnet.config import load_config
    from sprintnet.data.custom.manifest import Problem
    from sprintnet.errors import DataError
    from sprintnet.runs.io import write_rows
    from sprintnet.studies import check_settings

    settings = load_config(DEFAULT_RECIPE, overrides).data
    found = check_settings(settings)
    rows = [problem._asdict() for problem in found.details.problems]
    print(found)
    if options.output:
        write_rows(Path(options.output), rows, Problem._fields)
        print(f"\none row per problem: {options.output}")
    if options.pairs and not found.details.near:
        print("no near duplicates to draw")
    elif options.pairs:
        from sprintnet.reporting.figures.images import near_duplicates
        from sprintnet.reporting.figures.style import save

        save(partial(near_duplicates, found.details.near), Path(options.pairs).with_suffix(""))
        print(f"pairs of near duplicates, the least alike first: {Path(options.pairs).with_suffix('.png')}")
    if wrong := sum(row["severity"] in ("error", "skippable") for row in rows):
        raise DataError(f"{settings.name}: {wrong:,} problem{'s' if wrong > 1 else ''} to fix before training, listed above")
