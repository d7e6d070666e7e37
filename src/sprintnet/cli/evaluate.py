"""The commands about a finished run: val, explain, report. Each imports what it needs when it runs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sprintnet.cli.args import check_folder_of, overrides_in, refuse
from sprintnet.errors import SettingsError

if TYPE_CHECKING:
    pass

MAX_EXPLAINED = 64


def val(options: argparse.Namespace, words: list[str]) -> None:
    """Evaluates a finished run on one of its splits."""
    overrides = overrides_in(words)
    check_folder_of(options.output)
    from sprintnet.runs.folder import evaluation_split, log_test_access, open_run
    from sprintnet.runs.io import write_rows

    run = open_run(options.folder)

    from sprintnet.data.builtin.registry import BUILTIN_DATASETS
    from sprintnet.data.load import load_splits, require_same_splits
    from sprintnet.evaluation.trained_model import load_run
    from sprintnet.reporting.text.evaluation import evaluation_lines

    trained, config = load_run(options.folder, overrides)
    splits = load_splits(config.data, run=run if run.splits.exists() else None, test=options.split == "test")
    options.split = options.split or evaluation_split(splits)
    if options.split not in splits:
        remedy = "one that is trained with data.val=0.1 holds a part out" if options.split == "val" else "choose one of them"
        raise SettingsError(f"--split {options.split}: this run has {', '.join(splits)}; {remedy}")
    if options.split != "test" or config.data.name not in BUILTIN_DATASETS:
        require_same_splits(splits, run, f"--split {options.split}")
    found, metrics = trained.evaluate(splits[options.split], config.tta)
    if options.split == "test":
        log_test_access(run, "val --split test", metrics)
    print(f"{options.folder}: {options.split}, {metrics['images']:,} images")
    print(*evaluation_lines(metrics), sep="\n")
    if options.output:
        write_rows(
            Path(options.output),
            trained.task.prediction_rows(found["logits"], found["labels"], trained.classes, splits[options.split].files),
        )
        print(f"a row an image: {options.output}")


def explain(options: argparse.Namespace, words: list[str]) -> None:
    """Shows where a network looks: Grad-CAM maps over images from files, or over its surest wrong answers."""
    files = [word for word in words if not word.startswith("--")]
    refuse([word for word in words if word.startswith("--")])
    if files and options.wrong is not None:
        raise SettingsError(f"--wrong {options.wrong}: beside image files; leave one of them out")
    wrong = 16 if options.wrong is None else options.wrong
    if not 1 <= wrong <= MAX_EXPLAINED or len(files) > MAX_EXPLAINED:
        raise SettingsError(f"--wrong {wrong}, {len(files)} files: from 1 to {MAX_EXPLAINED} images fit into a picture")
    from sprintnet.runs.folder import open_run

    run = open_run(options.folder)

    from sprintnet.evaluation.explain import Explanation, explain_files, explain_wrong
    from sprintnet.evaluation.trained_model import load_run
    from sprintnet.reporting.figures.run_figures import save_figure
    from sprintnet.reporting.text.evaluation import faithfulness_lines

    trained, _ = load_run(options.folder)
    explanation: Explanation | None
    if files:
        explanation = explain_files(run, trained, files, options.target_class, options.layer)
    else:
        explanation = explain_wrong(run, trained, wrong, options.target_class, options.layer)
    if not explanation:
        raise SettingsError(f"{run.path}: there are no wrong predictions to explain; name image files")
    print(*faithfulness_lines(explanation.faithfulness), sep="\n")
    print(f"figure: {save_figure(run, 'grad_cam_files' if files else 'grad_cam')}")


def report(options: argparse.Namespace, words: list[str]) -> None:
    """Draws a finished run's metrics and writes its page, report.html; of several runs: one page, side by side."""
    refuse(words)
    check_folder_of(options.output)
    from sprintnet.runs.folder import open_run

    runs = [open_run(folder) for folder in options.folders]
    if len(runs) > 1:
        from sprintnet.reporting.html.comparison import write_comparison

        page = Path(options.output or "comparison.html")
        write_comparison(runs, page)
        print(f"report: {page}")
        return
    from sprintnet.reporting.html.report import write_report

    print(f"report: {write_report(runs[0], Path(options.output) if options.output else None)}")
