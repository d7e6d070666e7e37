"""The effect of label smoothing on accuracy and calibration: three values with five seeds each.

    python benchmarks/label_smoothing.py

Trains a small sprint94, so that 15 runs take minutes; the temperature is fitted on a held-out tenth of the training images.
The same command continues an interrupted study. Appends a row to benchmarks/results/label_smoothing.jsonl and replaces the
table in docs/explanations/label_smoothing.md.
"""

from dataclasses import asdict, replace
from pathlib import Path

from document import write_between
from sprintnet.config import load_config
from sprintnet.experiments.compare import summarise
from sprintnet.experiments.study import run_study, seed_runs
from sprintnet.experiments.study_runs import metric_values, read_runs
from sprintnet.runs.folder import STUDY_FOLDER, RunFolder
from sprintnet.runs.io import append_row

ROOT = Path(__file__).parents[1]
SMOOTHINGS = (0.0, 0.1, 0.2)
SEEDS = 5
SETTINGS = ["epochs=6", "model.width=32", "optim.head_lr=335", "data.val=0.1", "tta=0"]
COLUMNS = ("accuracy", "ECE", "temperature", "ECE calibrated")


def main() -> None:
    """Trains the missing runs, then writes the row and the table."""
    recipe = load_config("sprint94", SETTINGS)
    summaries = {}
    for alpha in SMOOTHINGS:
        folder = RunFolder(STUDY_FOLDER / f"smoothing-{alpha:g}")
        config = replace(recipe, label_smoothing=alpha)
        for _ in run_study(config, folder, seed_runs(config, SEEDS)):
            pass
        found = metric_values(read_runs(folder.path))
        summaries[alpha] = {label: summarise(found[label]) for label in COLUMNS}
    row = {f"{alpha:g}": {label: asdict(summary) for label, summary in found.items()} for alpha, found in summaries.items()}
    append_row(ROOT / "benchmarks" / "results" / "label_smoothing.jsonl", {"settings": SETTINGS, "by_smoothing": row})

    lines = ["| smoothing | accuracy | ECE | fitted temperature | ECE calibrated |", "|" + "---|" * 5]
    for alpha, found in summaries.items():
        cells = [
            f"{summary.mean:.3f} ({summary.low:.3f} to {summary.high:.3f})"
            if label == "temperature"
            else f"{summary.mean:.2%} ({summary.low:.2%} to {summary.high:.2%})"
            for label, summary in found.items()
        ]
        lines.append(f"| {alpha:g} | {' | '.join(cells)} |")
    write_between(ROOT / "docs" / "explanations" / "label_smoothing.md", "measured", "\n".join(lines))


if __name__ == "__main__":
    main()
