"""What each verb of the command does; each imports what it needs when it runs, so that help and mistakes take no time."""

import argparse
import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sprintnet.arguments import check_folder_of, overrides_in, recipe_and_overrides, refuse
from sprintnet.errors import SettingsError

if TYPE_CHECKING:
    from sprintnet.config import Config
    from sprintnet.runs.folder import RunFolder

MOST_EXPLAINED = 64


def train(options: argparse.Namespace, words: list[str]) -> None:
    """Trains a recipe into a new run folder, or resumes one."""
    recipe, overrides = recipe_and_overrides(words)
    overrides += [f"data.name={options.data}"] * bool(options.data) + ["data.dedupe=true"] * options.dedupe
    if options.help:
        _train_help(options, recipe)
        return
    from sprintnet.runs.folder import new_run

    config = _config(recipe, overrides)
    run = new_run(options.name or Path(recipe).stem, exact=bool(options.name), resume=options.resume)

    from sprintnet import pipeline
    from sprintnet.reporting.evaluation import result_lines

    with contextlib.ExitStack() as stack:
        events = None
        if options.tensorboard:
            from sprintnet.reporting.tensorboard import Events

            events = stack.enter_context(Events(run))
        metrics = pipeline.train(config, run, resume=options.resume, watch=events.row if events else lambda row: None)
        for line in result_lines(metrics, str(run.path)):
            run.log(line)
        if not options.no_report:
            _explain_and_report(run)
        if events:
            events.figures()


def val(options: argparse.Namespace, words: list[str]) -> None:
    """Evaluates a finished run on one of its splits."""
    overrides = overrides_in(words)
    check_folder_of(options.output)
    from sprintnet.runs.folder import judged_split, note_test_reading, open_run
    from sprintnet.runs.io import write_rows

    run = open_run(options.folder)

    from sprintnet.data.builtin.registry import NAMED
    from sprintnet.preparation import load_splits, refuse_other_splits
    from sprintnet.reporting.evaluation import evaluation_lines
    from sprintnet.trained import load_run

    trained, config = load_run(options.folder, overrides)
    splits = load_splits(config, kept=run.splits if run.splits.exists() else None, test=options.split == "test")
    options.split = options.split or judged_split(splits)
    if options.split not in splits:
        remedy = "one that is trained with data.val=0.1 holds a part out" if options.split == "val" else "choose one of them"
        raise SettingsError(f"--split {options.split}: this run has {', '.join(splits)}; {remedy}")
    if options.split != "test" or config.data.name not in NAMED:
        refuse_other_splits(splits, run, f"--split {options.split}")
    found, figures = trained.assess(splits[options.split], config.tta)
    if options.split == "test":
        note_test_reading(run, "val --split test", figures)
    print(f"{options.folder}: {options.split}, {figures['images']:,} images")
    print(*evaluation_lines(figures), sep="\n")
    if options.output:
        write_rows(
            Path(options.output),
            trained.task.prediction_rows(found["logits"], found["labels"], trained.classes, splits[options.split].files),
        )
        print(f"a row an image: {options.output}")


def study(options: argparse.Namespace, words: list[str]) -> None:
    """Trains a recipe under several seeds and states mean, spread and interval."""
    recipe, overrides = recipe_and_overrides(words)
    if options.seeds < 2:
        raise SettingsError(f"--seeds {options.seeds}: a spread needs two or more")
    from sprintnet.runs.folder import STUDY_FOLDER, new_run

    config = _config(recipe, overrides)
    name = options.name or Path(recipe).stem
    folder = new_run(name, exact=bool(options.name), resume=options.resume, parent=STUDY_FOLDER)

    from sprintnet.reporting.statistics import run_line, summary_line
    from sprintnet.study import figures, run_study, summarise

    runs = []
    for metrics in run_study(config, folder, options.seeds):
        runs.append(metrics)
        print(f"{len(runs)} of {options.seeds}: {run_line(figures(runs))}", flush=True)
    print(f"\n{folder.path}: {len(runs)} runs; mean, standard deviation, 95 % interval of the mean")
    for label, values in figures(runs).items():
        print(summary_line(label, summarise(values)))


def compare(options: argparse.Namespace, words: list[str]) -> None:
    """Says whether two studies differ by more than their spread."""
    refuse(words)
    from sprintnet.reporting.statistics import comparison_lines
    from sprintnet.study import compare, figures, read_runs

    runs = {path: read_runs(path) for path in (options.a, options.b)}
    for side, path in (("A", options.a), ("B", options.b)):
        print(f"{side}: {path}, {len(runs[path])} runs")
    a, b = figures(runs[options.a]), figures(runs[options.b])
    print(*comparison_lines({label: compare(a[label], b[label]) for label in a if label in b}), sep="\n")


def benchmark(options: argparse.Namespace, words: list[str]) -> None:
    """Measures a recipe on this machine: phases of a step, then a whole training."""
    recipe, overrides = recipe_and_overrides(words)
    if not 0 < options.target <= 1:
        raise SettingsError(f"--target {options.target:g}: must be a share above 0 and at most 1, such as 0.94")
    from sprintnet.runs.folder import new_run, read_rows
    from sprintnet.runs.io import append_row

    config = _config(recipe, overrides)

    from sprintnet.benchmark import measure_phases, measure_training
    from sprintnet.preparation import load_splits
    from sprintnet.reporting.benchmark import phase_lines, training_lines
    from sprintnet.reporting.curves import accuracy_over_time
    from sprintnet.reporting.style import save

    phases = measure_phases(config, load_splits(config)["train"])
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


def lr_find(options: argparse.Namespace, words: list[str]) -> None:
    """Sweeps the learning rate of a recipe and suggests where its peak should be."""
    recipe, overrides = recipe_and_overrides(words)
    if options.seeds < 1 or options.rates < 10 or not 0 < options.lowest < options.highest:
        raise SettingsError("--seeds must be at least 1, --rates at least 10, and 0 < --lowest < --highest")
    from sprintnet.runs.folder import LR_FOLDER, new_run

    config = _config(recipe, overrides)
    folder = new_run(Path(recipe).stem, exact=False, resume=False, parent=LR_FOLDER)

    from sprintnet.lr_search import find_learning_rates
    from sprintnet.reporting.curves import lr_sweeps
    from sprintnet.reporting.statistics import suggestion_lines
    from sprintnet.reporting.style import save

    found = find_learning_rates(config, folder, options.seeds, options.lowest, options.highest, options.rates)
    save(partial(lr_sweeps, found), folder.plots / "lr_finder")
    print(*suggestion_lines(found, config.peak_lr), f"curve and picture in {folder.path}", sep="\n")


def explain(options: argparse.Namespace, words: list[str]) -> None:
    """Shows where a network looks: Grad-CAM maps over images from files, or over its surest wrong answers."""
    files = [word for word in words if not word.startswith("--")]
    refuse([word for word in words if word.startswith("--")])
    if files and options.wrong is not None:
        raise SettingsError(f"--wrong {options.wrong}: beside image files; leave one of them out")
    wrong = 16 if options.wrong is None else options.wrong
    if not 1 <= wrong <= MOST_EXPLAINED or len(files) > MOST_EXPLAINED:
        raise SettingsError(f"--wrong {wrong}, {len(files)} files: from 1 to {MOST_EXPLAINED} images fit into a picture")
    from sprintnet.runs.folder import open_run

    run = open_run(options.folder)

    from sprintnet.explanation import explain_files, explain_wrong
    from sprintnet.reporting.draw import draw_one
    from sprintnet.reporting.evaluation import faithfulness_lines
    from sprintnet.trained import load_run

    trained, _ = load_run(options.folder)
    if files:
        figures = explain_files(run, trained, files, options.about, options.layer)
    else:
        figures = explain_wrong(run, trained, wrong, options.about, options.layer)
    if not figures:
        raise SettingsError(f"{run.path}: no wrong answer is there to explain; name image files")
    print(*faithfulness_lines(figures), sep="\n")
    print(f"picture: {draw_one(run, 'grad_cam_files' if files else 'grad_cam')}")


def label_errors(options: argparse.Namespace, words: list[str]) -> None:
    """Finds likely label errors: each training image is judged by a network trained without it."""
    refuse(words)
    from sprintnet.runs.folder import open_run

    run = open_run(options.folder)

    from sprintnet.config import load_config
    from sprintnet.label_errors import find_label_errors
    from sprintnet.preparation import load_splits, refuse_other_splits
    from sprintnet.reporting.report import write_report

    config = load_config(run.config)
    splits = load_splits(config, kept=run.splits if run.splits.exists() else None)
    refuse_other_splits(splits, run, options.folder)
    found = find_label_errors(config, splits, run, options.folds, options.resume)
    table = run.label_errors.with_suffix(".csv")
    print(f"{len(found.ranked):,} of {len(found.probabilities):,} labels are likely wrong, the worst first: {table}")
    print(f"report: {write_report(run)}")


def report(options: argparse.Namespace, words: list[str]) -> None:
    """Draws a finished run's figures and writes its page, report.html; of several runs: one page, side by side."""
    refuse(words)
    check_folder_of(options.output)
    from sprintnet.runs.folder import open_run

    runs = [open_run(folder) for folder in options.folders]
    if len(runs) > 1:
        from sprintnet.reporting.comparison import write_comparison

        page = Path(options.output or "comparison.html")
        write_comparison(runs, page)
        print(f"report: {page}")
        return
    from sprintnet.reporting.report import write_report

    print(f"report: {write_report(runs[0], Path(options.output) if options.output else None)}")


def summary(options: argparse.Namespace, words: list[str]) -> None:
    """Prints a recipe's layer table, then its learning rate and momentum epoch by epoch."""
    recipe, overrides = recipe_and_overrides(words)
    from sprintnet.config import load_config

    config = load_config(recipe, overrides)

    from sprintnet.models.factory import build_model
    from sprintnet.models.summary import layer_table
    from sprintnet.preparation import fit_to_data, outline
    from sprintnet.training.schedule import learning_rates

    classes, image_shape, images = outline(config)
    config, reasons = fit_to_data(config, classes, image_shape, images)
    print(*(f"auto: {reason}" for reason in reasons), sep="\n", end="\n" if reasons else "")
    print(layer_table(build_model(config.model, len(classes), image_shape), image_shape))
    print("| Epoch | LR       | Momentum |\n-------------------------------")
    for epoch, lr in enumerate(learning_rates(config.schedule, config.epochs, config.peak_lr), 1):
        print(f"| {epoch:5d} | {lr:.6f} | {config.filter_momentum:.6f} |")


def recipes(options: argparse.Namespace, words: list[str]) -> None:
    """Lists the shipped recipes with what to expect of each."""
    refuse(words)
    from sprintnet.config import recipes

    for name, head in recipes().items():
        print(f"{name}\n  " + head.replace("\n", "\n  "))


def _explain_and_report(run: "RunFolder") -> None:
    """Maps of the surest wrong answers, all figures and the page of a finished run."""
    from sprintnet.explanation import explain_wrong
    from sprintnet.reporting.report import write_report
    from sprintnet.trained import load_run

    explain_wrong(run, load_run(run.path)[0])
    run.log(f"report: {write_report(run)}")


def _config(recipe: str, overrides: list[str]) -> "Config":
    """Returns the settings of a recipe whose data can be had."""
    from sprintnet.config import load_config
    from sprintnet.data.custom.load import require

    config = load_config(recipe, overrides)
    require(config.data.name)
    return config


def _train_help(options: argparse.Namespace, recipe: str) -> None:
    """Prints the verb's own options, then every setting with the recipe's value as its default."""
    import tyro

    from sprintnet.config import Config, load_config

    options.parser.print_help()
    print(f"\nsettings of {recipe}:")
    with contextlib.suppress(SystemExit):
        tyro.cli(Config, default=load_config(recipe), args=["--help"], prog=f"sprintnet train {recipe}")
