"""The commands about many runs: study, compare, benchmark, label-errors. Each imports what it needs when it runs."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sprintnet.cli.args import load_available_config, recipe_and_overrides, refuse
from sprintnet.errors import SettingsError

if TYPE_CHECKING:
    pass


def study(options: argparse.Namespace, words: list[str]) -> None:
    """Trains a recipe under several seeds and states mean, spread and interval."""
    recipe, overrides = recipe_and_overrides(words)
    if options.seeds < 2:
        raise SettingsError(f"--seeds {options.seeds}: a standard deviation needs two or more")
    from sprintnet.runs.folder import STUDY_FOLDER, new_run

    config = load_available_config(recipe, overrides)
    name = options.name or Path(recipe).stem
    folder = new_run(name, exact=bool(options.name), resume=options.resume, parent=STUDY_FOLDER)

    from sprintnet.experiments.compare import metric_values, summarise
    from sprintnet.experiments.study import run_study
    from sprintnet.reporting.text.statistics import run_line, summary_lines

    runs = []
    for metrics in run_study(config, folder, options.seeds):
        runs.append(metrics)
        print(f"{len(runs)} of {options.seeds}: {run_line(metric_values(runs))}", flush=True)
    print(f"\n{folder.path}: {len(runs)} runs")
    print(*summary_lines({label: summarise(values) for label, values in metric_values(runs).items()}), sep="\n")


def compare(options: argparse.Namespace, words: list[str]) -> None:
    """Says whether two studies differ by more than their spread."""
    refuse(words)
    from sprintnet.experiments.compare import compare, metric_values, read_runs
    from sprintnet.reporting.text.statistics import comparison_lines

    runs = {path: read_runs(path) for path in (options.a, options.b)}
    for side, path in (("A", options.a), ("B", options.b)):
        print(f"{side}: {path}, {len(runs[path])} runs")
    a, b = metric_values(runs[options.a]), metric_values(runs[options.b])
    print(*comparison_lines({label: compare(a[label], b[label]) for label in a if label in b}), sep="\n")


def benchmark(options: argparse.Namespace, words: list[str]) -> None:
    """Measures a recipe on this machine: phases of a step, then a whole training."""
    recipe, overrides = recipe_and_overrides(words)
    if not 0 < options.target <= 1:
        raise SettingsError(f"--target {options.target:g}: must be a share above 0 and at most 1, such as 0.94")
    from sprintnet.runs.folder import new_run, read_rows
    from sprintnet.runs.io import append_row

    config = load_available_config(recipe, overrides)

    from sprintnet.data.load import load_splits
    from sprintnet.experiments.benchmark import measure_phases, measure_training
    from sprintnet.reporting.figures.curves import accuracy_over_time
    from sprintnet.reporting.figures.style import save
    from sprintnet.reporting.text.benchmark import phase_lines, training_lines

    phases = measure_phases(config, load_splits(config.data)["train"])
    print(*phase_lines(phases), sep="\n")
    row = {"recipe": recipe, "overrides": overrides, "phases": phases}
    append_row(Path(options.output), row)
    if not options.phases:
        run = new_run(f"benchmark-{Path(recipe).stem}", exact=False, resume=False)
        training = measure_training([recipe, *overrides], run, options.target)
        append_row(Path(options.output), {**row, "training": training})
        print(*training_lines(training), sep="\n")
        save(partial(accuracy_over_time, {recipe: read_rows(run.results)}, options.target), run.plots / "accuracy_over_time")
    print(f"measurements appended to {options.output}")


def label_errors(options: argparse.Namespace, words: list[str]) -> None:
    """Finds likely label errors: each training image is judged by a network trained without it."""
    refuse(words)
    from sprintnet.runs.folder import open_run

    run = open_run(options.folder)

    from sprintnet.config import load_config
    from sprintnet.data.load import load_splits, require_same_splits
    from sprintnet.experiments.label_errors import label_errors
    from sprintnet.reporting.html.report import write_report

    config = load_config(run.config)
    splits = load_splits(config.data, run=run if run.splits.exists() else None)
    require_same_splits(splits, run, options.folder)
    found = label_errors(config, splits, run, options.folds, options.resume)
    table = run.label_errors.with_suffix(".csv")
    print(f"{len(found.ranked):,} of {len(found.probabilities):,} labels are likely wrong, the worst first: {table}")
    print(f"report: {write_report(run)}")
