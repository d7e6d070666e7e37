"""The command tune."""

import shlex
from argparse import Namespace
from pathlib import Path

from sprintnet.cli.args import load_recipe, recipe_of
from sprintnet.errors import SettingsError
from sprintnet.runs.folder import TUNE_FOLDER, new_run, read_json, run_name


def tune(options: Namespace) -> None:
    """Searches for better settings, and tests what it finds."""
    if not options.space:
        raise SettingsError("--space: name a TOML file with a table [tune.space] of settings and their values")
    config = load_recipe(options)

    import optuna  # noqa: F401  (missing: said before anything starts)

    from sprintnet.experiments.placement import Placement
    from sprintnet.experiments.tuning.space import read_space
    from sprintnet.experiments.tuning.tune import Tuning, tune

    recipe, placement = recipe_of(options), Placement(options.jobs, options.on)
    placement.fix_runtime(config)  # refuses what the cores cannot do
    space = read_space(Path(options.space), config, recipe, options.overrides)
    tuning = Tuning(config, tuple(space), options.trials, options.confirm, options.minutes, placement)
    name = options.name or run_name(recipe)
    folder = new_run(name, exact=bool(options.name), resume=options.resume, parent=TUNE_FOLDER)
    heading = f"starting: {options.trials} trials of {recipe} on {config.data.name}, in {folder.path}"
    print(heading, *space, sep="\n  ", flush=True)

    tune(tuning, folder, lambda line: print(line, flush=True))

    from sprintnet.reporting.html.tuning import write_tuning_page
    from sprintnet.reporting.text.tuning import result_lines

    print("", *result_lines(read_json(folder.path / "tune.json")), sep="\n")
    print(f"report: {write_tuning_page(folder.path)}")
    print(f"next: sprintnet train {shlex.quote(str(folder.path / 'best.toml'))}")
