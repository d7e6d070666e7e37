"""The commands about a finished run: val, verify, explain, log, report. Each imports what it needs when it runs."""

import sys
from argparse import Namespace
from pathlib import Path

from sprintnet.cli.args import NO_FILES, check_output
from sprintnet.errors import SettingsError, SprintNetError
from sprintnet.runs.folder import RunFolder, evaluation_split, find_run, log_test_access, open_run

TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
ERRORS, MAX_EXPLAINED = 16, 64  # how many of the most confident errors are explained in one figure


def val(options: Namespace) -> None:
    """Evaluates a run on one of its splits, or on other data."""
    check_output(options.output)
    run, split = open_run(*options.names), options.split

    from sprintnet.config import load_config
    from sprintnet.data.builtin.registry import BUILTIN_DATASETS
    from sprintnet.data.load import load_labelled, load_splits, require_same_splits
    from sprintnet.datasets import same_data
    from sprintnet.evaluation.trained_model import load_run
    from sprintnet.reporting.text.evaluation import evaluation_lines
    from sprintnet.runs.io import write_rows

    trained, config = load_run(run.path, options.overrides)
    is_other = not same_data(config.data.name, load_config(run.config).data.name)
    if is_other:
        dataset = load_labelled(config.data, trained.preprocessing, split)
    else:
        splits = load_splits(config.data, run=run if run.splits.exists() else None, test=split == "test")
        split = split or evaluation_split(splits)
        if split not in splits:
            remedy = "to hold images out, train without data.val=0" if split == "val" else "choose one of them"
            raise SettingsError(f"--split {split}: this run has {', '.join(splits)}; {remedy}")
        if split != "test" or config.data.name not in BUILTIN_DATASETS:
            require_same_splits(splits, run, f"--split {split}")
        dataset = splits[split]
    found = trained.evaluate(dataset, config.tta)
    metrics = found.metrics(trained.preprocessing)
    if split == "test" and not is_other:
        log_test_access(run, "val --split test", metrics)
    evaluated = [str(run.path), config.data.name] if is_other else [str(run.path)]
    print(f"{' on '.join(evaluated)}: {split or 'all'}, {metrics['images']:,} images")
    print(*evaluation_lines(metrics), sep="\n")
    if options.output:
        write_rows(Path(options.output), found.rows(trained.preprocessing, dataset.files))
        print(f"one row per image: {options.output}")


def explain(options: Namespace) -> None:
    """Shows where the network looks, by Grad-CAM."""
    name, *words = options.names
    if words and options.wrong != ERRORS:
        raise SettingsError(f"--wrong {options.wrong}: cannot be combined with image files; leave one of them out")
    run = open_run(name)

    from sprintnet.deploy.predict_files import find_files

    files = [str(file) for file in find_files(words, sys.stdin)]
    if len(files) > MAX_EXPLAINED:
        print(f"{len(files):,} files: the first {MAX_EXPLAINED} are explained, which fit into one figure")
        files = files[:MAX_EXPLAINED]
    if words and not files:
        raise SettingsError(NO_FILES)
    print(f"starting: class activation maps of {run.path}", flush=True)

    from sprintnet.evaluation.explain import explain_files, explain_wrong
    from sprintnet.evaluation.trained_model import load_run
    from sprintnet.reporting.figures.run_figures import save_figure
    from sprintnet.reporting.text.evaluation import explained_lines, faithfulness_lines

    trained, _ = load_run(run.path)
    if files:
        explanation = explain_files(run, trained, files, options.target_class, options.layer)
        print(*explained_lines(explanation.predictions), "", sep="\n")
    elif found := explain_wrong(run, trained, options.wrong, options.target_class, options.layer):
        explanation = found
        if found.none_wrong:
            print(f"no prediction is wrong; the maps are of the {len(found.images)} least confident ones")
    else:
        raise SettingsError(f"{run.path}: there are no wrong predictions to explain; name image files")
    print(*faithfulness_lines(explanation.faithfulness, explanation.scored), sep="\n")
    print(f"figure: {save_figure(run, 'grad_cam_files' if files else 'grad_cam')}")


def verify(options: Namespace) -> None:
    """Checks that a run is what its folder says, and repeats it."""
    run = RunFolder(find_run(*options.names))
    if not (run.metrics.is_file() and run.weights.is_file() and run.config.is_file()):
        open_run(run.path)  # says what is missing
    print(f"starting: verification of {run.path}", flush=True)

    from sprintnet.verification import UNCHECKED, verify

    unchecked = []
    for check in verify(run, replay=not options.no_replay):
        print(f"{check.subject:15} {check.outcome:12} {check.detail}", flush=True)
        unchecked += [check.subject] * (check.outcome == UNCHECKED)
    unchecked += ["training"] * options.no_replay
    left = f"; not checked: {', '.join(unchecked)}" if unchecked else ""
    print(f"{'partly ' * bool(unchecked)}verified: {run.path}{left}")


def log(options: Namespace) -> None:
    """Sends finished runs' rows, metrics and figures to a tracker."""
    from sprintnet.reporting.tracking import Tracking

    runs = [open_run(name) for name in options.names]
    if not options.to:
        example = f"sprintnet log {options.names[0]} --to trackio"
        raise SettingsError(f"--to is missing; must be one of {', '.join(TRACKERS)}, such as: {example}")
    for run in runs:
        tracking = Tracking(run, options.to, print)
        tracking.finish()
        if failed := [name for name in options.to if name not in tracking.trackers]:
            raise SprintNetError(f"{run.path}: not completely in {', '.join(failed)}, see above")
        print(f"{run.path}: in {', '.join(options.to)}", flush=True)


def report(options: Namespace) -> None:
    """Writes the report of a run, or a comparison of several."""
    check_output(options.output)
    runs = [open_run(name) for name in options.names]
    print(f"starting: report of {', '.join(str(run.path) for run in runs)}", flush=True)
    if len(runs) > 1:
        from sprintnet.reporting.html.comparison import write_comparison

        page = Path(options.output or "comparison.html")
        write_comparison(runs, page)
    else:
        from sprintnet.reporting.html.report import write_report

        page = write_report(runs[0], Path(options.output) if options.output else None)
    print(f"report: {page}")
