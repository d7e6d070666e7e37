"""The commands about training: train, summary, lr-find, recipes. Each imports what it needs when it runs."""

import argparse
import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sprintnet.cli.args import load_available_config, recipe_and_overrides, refuse
from sprintnet.errors import SettingsError

if TYPE_CHECKING:
    from sprintnet.evaluation.trained_model import TrainedModel
    from sprintnet.runs.folder import RunFolder


def train(options: argparse.Namespace, words: list[str]) -> None:
    """Trains a recipe into a new run folder, or resumes one."""
    recipe, overrides = recipe_and_overrides(words)
    overrides += [f"data.name={options.data}"] * bool(options.data) + ["data.dedupe=true"] * options.dedupe
    if options.help:
        _train_help(options, recipe)
        return
    from sprintnet.runs.folder import new_run

    config = load_available_config(recipe, overrides)
    run = new_run(options.name or Path(recipe).stem, exact=bool(options.name), resume=options.resume)

    from sprintnet.reporting.text.evaluation import result_lines
    from sprintnet.training import train as pipeline

    with contextlib.ExitStack() as stack:
        events = None
        if options.tensorboard:
            from sprintnet.reporting.tensorboard import Events

            events = stack.enter_context(Events(run))
        on_epoch = events.row if events else lambda row: None
        result = pipeline.train(config, run, resume=options.resume, on_epoch=on_epoch)
        for line in result_lines(result.metrics, str(run.path)):
            run.log(line)
        if not options.no_report:
            _explain_and_report(run, result.model)
        if events:
            events.figures()


def summary(options: argparse.Namespace, words: list[str]) -> None:
    """Prints a recipe's layer table, then its learning rate and momentum epoch by epoch."""
    recipe, overrides = recipe_and_overrides(words)

    config = load_available_config(recipe, overrides)

    from sprintnet.autoconfig import resolve
    from sprintnet.models.factory import build_model
    from sprintnet.models.summary import layer_table
    from sprintnet.models.transfer import load_pretrained
    from sprintnet.training.schedule import Schedule
    from sprintnet.training.setup import dataset_facts

    facts = dataset_facts(config, load_pretrained(config.init_from))
    config, reasons = resolve(config, facts)
    print(*(f"auto: {reason}" for reason in reasons), sep="\n", end="\n" if reasons else "")
    print(layer_table(build_model(config.model, facts.classes, facts.image_shape), facts.image_shape))
    print("| Epoch | LR       | Momentum |\n-------------------------------")
    schedule = Schedule(config.schedule, config.epochs)
    for epoch in range(config.epochs):
        lr = config.peak_lr * schedule.lr_factor(epoch)
        print(f"| {epoch + 1:5d} | {lr:.6f} | {config.filter_momentum:.6f} |")


def lr_find(options: argparse.Namespace, words: list[str]) -> None:
    """Sweeps the learning rate of a recipe and suggests where its peak should be."""
    recipe, overrides = recipe_and_overrides(words)
    if options.seeds < 1 or options.rates < 10 or not 0 < options.lowest < options.highest:
        raise SettingsError("--seeds must be at least 1, --rates at least 10, and 0 < --lowest < --highest")
    from sprintnet.runs.folder import LR_FOLDER, new_run

    config = load_available_config(recipe, overrides)
    folder = new_run(Path(recipe).stem, exact=False, resume=False, parent=LR_FOLDER)

    from sprintnet.reporting.figures.curves import lr_sweeps
    from sprintnet.reporting.figures.style import save
    from sprintnet.reporting.text.statistics import suggestion_lines
    from sprintnet.training.lr_search import lr_find

    found = lr_find(config, folder, options.seeds, options.lowest, options.highest, options.rates)
    save(partial(lr_sweeps, found), folder.plots / "lr_finder")
    print(*suggestion_lines(found, config.peak_lr), f"curve and picture in {folder.path}", sep="\n")


def recipes(options: argparse.Namespace, words: list[str]) -> None:
    """Lists the shipped recipes with what to expect of each."""
    refuse(words)
    from sprintnet.config import recipes

    for name, head in recipes().items():
        print(f"{name}\n  " + head.replace("\n", "\n  "))


def _explain_and_report(run: "RunFolder", model: "TrainedModel") -> None:
    """Maps of the surest wrong answers, all figures and the page of a finished run."""
    from sprintnet.evaluation.explain import explain_wrong
    from sprintnet.reporting.html.report import write_report

    explain_wrong(run, model)
    run.log(f"report: {write_report(run)}")


def _train_help(options: argparse.Namespace, recipe: str) -> None:
    """Prints the verb's own options, then every setting with the recipe's value as its default."""
    import tyro

    from sprintnet.config import Config, load_config

    options.parser.print_help()
    print(f"\nsettings of {recipe}:")
    with contextlib.suppress(SystemExit):
        tyro.cli(Config, default=load_config(recipe), args=["--help"], prog=f"sprintnet train {recipe}")
