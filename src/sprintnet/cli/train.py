"""The commands about training: train, summary, lr-find, recipes. Each imports what it needs when it runs."""

import os
import re
import shlex
from argparse import Namespace
from collections.abc import Sequence
from importlib.util import find_spec

from filelock import Timeout

from sprintnet.cli.args import DEFAULT_RECIPE, load_recipe, recipe_of
from sprintnet.errors import SettingsError, did_you_mean
from sprintnet.runs.environment import own_rank
from sprintnet.runs.folder import LR_FOLDER, TRAIN_FOLDER, RunFolder, new_run, read_json, run_name, train_folder
from sprintnet.runs.lease import is_empty


def train(options: Namespace) -> None:
    """Trains a recipe into a new run folder, or resumes a run."""
    if options.resume and not options.names:
        options.names = _settings_to_resume(options.name, options.overrides)
    config = load_recipe(options)
    if own_rank():
        from sprintnet.training.train import follow

        follow(config)
        return
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0" and not options.name:
        raise SettingsError("--name: is needed with torchrun --max-restarts: a restart finds its run by it")
    options.resume = options.resume or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"

    from sprintnet.reporting.tracking import Tracking, require_installed

    require_installed(options.track)
    if find_spec("torch") is None:  # before a folder is made
        raise ModuleNotFoundError(name="torch")
    run = train_folder(recipe_of(options), options.name, resume=options.resume)
    was_finished = run.metrics.exists() and run.report.exists()
    print(f"starting: {recipe_of(options)} on {config.data.name}, in {run.path}", flush=True)

    if not options.resume and not options.name:
        if run.path.name != (usual := run_name(recipe_of(options))):
            print(f"{TRAIN_FOLDER / usual} exists already: other commands call this run {run.path.name}")
        for left in _unfinished(rf"{re.escape(run_name(recipe_of(options)))}(-\d+)?"):
            print(f"{left.path} is unfinished: sprintnet train --resume --name {shlex.quote(left.path.name)} continues it")

    from sprintnet.reporting.text.evaluation import result_lines
    from sprintnet.training import train as pipeline

    place = shlex.quote(str(run.path))
    tracking = Tracking(run, options.track, run.log)
    result = pipeline.train(config, run, resume=options.resume, on_epoch=tracking.row)
    for line in result_lines(result.metrics, str(run.path)):
        run.log(line)
    if not options.no_report and not was_finished:
        from sprintnet.api import Model

        run.log("drawing the report: Grad-CAM maps, figures (--no-report leaves it out)")
        run.log(f"report: {Model(result.model, run).report()}")
    tracking.finish()
    following = {f"explain {place}": "where the network looks", f"export {place}": "an ONNX file to ship"}
    if "test" not in result.metrics and "test_sha256" in read_json(run.data) and not run.test_access.exists():
        following = {f"val {place} --split test": "the test set, unused by this run"} | following
    width = max(map(len, following))
    for number, (command, purpose) in enumerate(following.items()):
        run.log(f"{'' if number else 'next:':6}sprintnet {command:{width}}   {purpose}")


def _settings_to_resume(name: str | None, overrides: Sequence[str]) -> list[str]:
    """Returns the settings of the run to resume where no recipe is named: of NAME; without name and settings, of the newest
    unfinished run with a checkpoint, or else without; none (the default recipe is taken) with settings of a run to start.

    Raises SettingsError where there is no such run.
    """
    if name and (config := new_run(name, exact=True, resume=True).config).exists():
        return [str(config)]
    if overrides:
        return []
    if name:
        there = did_you_mean(name, [file.parent.name for file in TRAIN_FOLDER.glob("*/config.toml")])
        rule = f"nothing to resume in {config.parent}{there or '; to start a run of this name, name its recipe'}"
        raise SettingsError(f"--name {name}: {rule}")
    if not (unfinished := _unfinished(".*")):
        rule = f"no run in {TRAIN_FOLDER.absolute()} is unfinished; to start one: sprintnet train {DEFAULT_RECIPE}"
        raise SettingsError(f"--resume: {rule}")
    return [str(max(unfinished, key=lambda run: run.checkpoint.exists()).config)]


def _unfinished(names: str) -> list[RunFolder]:
    """Returns the unfinished runs in runs/train that no process trains now, whose names match a regular expression; the newest
    first."""
    files = sorted(TRAIN_FOLDER.glob("*/config.toml"), key=lambda file: file.stat().st_mtime, reverse=True)
    runs = (RunFolder(file.parent) for file in files if re.fullmatch(names, file.parent.name))
    return [run for run in runs if not run.metrics.exists() and not _is_training(run)]


def _is_training(run: RunFolder) -> bool:
    lease = run.lease()
    try:
        lease.acquire(blocking=False)
    except Timeout:
        return not is_empty(run.lock)
    lease.release()
    return False


def summary(options: Namespace) -> None:
    """Prints a recipe's layers, and its learning rate per epoch."""
    config = load_recipe(options)

    from sprintnet.autoconfig import resolve
    from sprintnet.models.factory import build_model
    from sprintnet.models.summary import layer_table
    from sprintnet.models.transfer import load_pretrained
    from sprintnet.training.schedule import Schedule
    from sprintnet.training.setup import dataset_facts

    facts = dataset_facts(config, load_pretrained(config.init_from, config.model))
    config, reasons = resolve(config, facts)
    print(*(f"auto: {reason}" for reason in reasons), sep="\n", end="\n" if reasons else "")
    print(layer_table(build_model(config.model, facts.classes, facts.image_shape), facts.image_shape))
    print("| Epoch | LR       | Momentum |\n-------------------------------")
    schedule = Schedule(config.schedule, config.epochs)
    for epoch in range(config.epochs):
        lr = config.peak_lr * schedule.lr_factor(epoch)
        print(f"| {epoch + 1:5d} | {lr:.6f} | {config.filter_momentum:.6f} |")


def lr_find(options: Namespace) -> None:
    """Sweeps the learning rate and suggests a peak."""
    if options.lowest >= options.highest:
        raise SettingsError(f"--lowest {options.lowest:g}: must be below --highest {options.highest:g}")
    config = load_recipe(options)
    folder = new_run(run_name(recipe_of(options)), exact=False, resume=False, parent=LR_FOLDER)
    print(f"starting: sweep of {recipe_of(options)} on {config.data.name}, in {folder.path}", flush=True)

    from sprintnet.reporting.figures.run_figures import save_figure
    from sprintnet.studies import sweep_config

    limits = {"lowest": options.lowest, "highest": options.highest, "rates": options.rates}
    print(sweep_config(config, folder, options.seeds, options.all, **limits))
    print(f"figure: {save_figure(folder, 'lr_finder')}")


def recipes(options: Namespace) -> None:
    """Lists the recipes with their accuracy and training time."""
    from sprintnet.config import recipes
    from sprintnet.reporting.text.table import table_lines

    found = recipes()
    columns = ("parameters", "accuracy", "with TTA", "training", "commit")
    rows = [[name, *(facts[key] for key in columns)] for name, facts in found.items()]
    header, *lines = table_lines(["recipe", "params", *columns[1:]], rows)
    print(header)
    for line, facts in zip(lines, found.values(), strict=True):
        print(line, f"  {facts['network']}: {facts['use']}", sep="\n")
    hardware = "; ".join(dict.fromkeys(facts["hardware"] for facts in found.values() if facts["training"] != "-"))
    print("\nAccuracy: CIFAR-10, test set, mean of n runs, trained with data.val=0.")
    print(f"Training: {hardware}, at that commit.")
    print("Other processors differ: docs/reference/results.md.")
