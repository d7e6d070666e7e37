"""The commands about many runs: study, compare, benchmark, label-errors. Each imports what it needs when it runs."""

import shlex
from argparse import Namespace
from functools import partial
from pathlib import Path

from sprintnet.cli.args import load_recipe, recipe_of
from sprintnet.errors import SettingsError, SprintNetError
from sprintnet.runs.folder import STUDY_FOLDER, find_run, new_run, open_run, read_epochs, run_name
from sprintnet.runs.shards import parse_shard

WEAK_ACCURACY = 0.9  # agreement with the labels below which many candidates of `label-errors` are errors of the networks


def study(options: Namespace) -> None:
    """Trains a recipe with several seeds, or on several folds."""
    from sprintnet.experiments.placement import Placement
    from sprintnet.studies import StudyPlan, study_config

    placement = Placement(options.jobs, options.on)
    shard = parse_shard(options.shard)
    plan = StudyPlan(load_recipe(options), options.seeds or None, options.folds or None, shard, placement)
    name = options.name or run_name(recipe_of(options))
    folder = new_run(name, exact=bool(options.name), resume=options.resume, parent=STUDY_FOLDER)
    if options.resume and not list(folder.path.glob("*/config.toml")):
        if not (options.names or options.name or options.overrides):
            there = sorted({path.parts[-3] for path in STUDY_FOLDER.glob("*/*/config.toml")})
            rule = f"nothing to resume in {folder.path}; {STUDY_FOLDER.absolute()} has {', '.join(there) or 'none'}"
            raise SettingsError(f"--resume: {rule}; repeat the whole command of the study, with --resume")
        print(f"{folder.path}: nothing to resume, starting", flush=True)
    print(f"starting: {plan} of {recipe_of(options)} on {plan.config.data.name}, in {folder.path}", flush=True)
    if not placement.is_here:
        where = f"on {options.on}" if options.on else f"{options.jobs} runs at a time"
        print(f"{where}; what each prints: {folder.path / '*' / 'log.txt'}", flush=True)
    print(f"\n{study_config(plan, folder)}")
    print(f"next: sprintnet compare {shlex.quote(str(folder.path))} STUDY   (a study with other settings)")


def ensemble(options: Namespace) -> None:
    """Makes one model of a study's runs."""
    study = find_run(options.names[0], STUDY_FOLDER)
    print(f"starting: ensemble of {study}", flush=True)

    from sprintnet.studies import ensemble

    model = ensemble(study, name=options.name)
    print("drawing the report: Grad-CAM maps, figures", flush=True)
    print(f"report: {model.report()}")
    print(f"next: sprintnet export {shlex.quote(str(model.run))}")


def compare(options: Namespace) -> None:
    """Tests whether two studies differ by more than their spread."""
    from sprintnet.studies import compare_folders

    print(compare_folders(*options.names, split=options.split))


def benchmark(options: Namespace) -> None:
    """Measures the speed of a recipe on this machine."""
    recipe, config = recipe_of(options), load_recipe(options)
    if options.kernels:
        _benchmark_kernels(config.precision, config.threads)
        return

    from sprintnet.data.load import load_splits
    from sprintnet.experiments.benchmark import measure_phases, measure_training
    from sprintnet.reporting.figures.curves import accuracy_over_time
    from sprintnet.reporting.figures.style import save
    from sprintnet.reporting.text.benchmark import phase_lines, training_lines
    from sprintnet.runs.io import append_row

    phases = measure_phases(config, load_splits(config.data)["train"])
    print(*phase_lines(phases), sep="\n")
    row = {"recipe": recipe, "overrides": options.overrides, "phases": phases}
    append_row(Path(options.output), row)
    if not options.phases:
        run = new_run(f"benchmark-{run_name(recipe)}", exact=False, resume=False)
        if run.claim:
            run.claim.release()  # for the process that trains there
        training = measure_training([recipe, *options.overrides], run, options.target)
        append_row(Path(options.output), {**row, "training": training})
        print(*training_lines(training), sep="\n")
        if rows := read_epochs(run):
            save(partial(accuracy_over_time, {recipe: rows}, options.target), run.plots / "accuracy_over_time")
    print(f"measurements appended to {options.output}")


def _benchmark_kernels(precision: str, threads: int) -> None:
    from sprintnet.experiments.kernel_benchmark import REPEATS, measure_layers
    from sprintnet.kernels import build
    from sprintnet.reporting.text.benchmark import layer_lines
    from sprintnet.runs.environment import environment_record
    from sprintnet.runtime import DTYPES, select_runtime

    runtime = select_runtime("cpu", precision, threads)
    if runtime.precision not in build.PROCESSORS:
        raise SettingsError(f"precision={precision}: kernels exist for {' and '.join(build.PROCESSORS)} only")
    kind, here = build.processor(runtime.precision) or "no kernels", environment_record()
    print(f"{here['cpu']} ({kind}), {runtime.threads} threads, {runtime.precision}")
    print(f"commit {here['commit'] or 'unknown'}, n = {REPEATS} rounds", flush=True)
    with runtime.activated(0):
        layers = list(measure_layers(DTYPES[runtime.precision]))
    print(*layer_lines(layers), sep="\n")
    if slow := [layer for layer in layers if not layer.is_best]:
        raise SprintNetError(
            f"{len(slow)} of {len(layers)} layers have a faster implementation than kernels/choices.csv chooses; on an idle "
            "machine, measure again with: python benchmarks/kernel_choices.py"
        )


def label_errors(options: Namespace) -> None:
    """Finds training images whose labels are likely wrong."""
    run = open_run(*options.names)

    from sprintnet.config import load_config
    from sprintnet.data.load import load_splits, require_same_splits
    from sprintnet.experiments.label_errors import label_errors
    from sprintnet.experiments.placement import Placement
    from sprintnet.reporting.html.report import write_report

    config = load_config(run.config)
    splits = load_splits(config.data, run=run if run.splits.exists() else None)
    require_same_splits(splits, run, str(run.path))
    found = label_errors(config, splits, run, options.folds, options.resume, Placement(options.jobs, options.on))
    table = run.label_errors.with_suffix(".csv")
    print(f"judged: the images of {' and '.join(name for name in splits if name != 'test')}, not those of the test set")
    print(f"{len(found.ranked):,} of {len(found.probabilities):,} labels are likely wrong, most suspicious first: {table}")
    print(f"the networks that judged them agree with {found.accuracy:.2%} of all labels")
    if doubtful := len(found.contradicted) - len(found.ranked):
        print(f"the table also has {doubtful:,} labels that they contradict, more likely right than wrong")
    if found.accuracy < WEAK_ACCURACY:
        print("caution: networks this weak err often: many of these labels are right; look at each image before you change it")
    print(f"report: {write_report(run)}")
