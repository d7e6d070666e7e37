"""Appends a row about finished runs of one recipe to a JSONL file: settings, hardware, seeds, metrics.

    sprintnet study davidnet --seeds 5
    python benchmarks/record.py davidnet-24-epochs runs/study/davidnet/seed-*

Writes benchmarks/results/NAME.jsonl, and the last run's printed table to NAME.txt. The runs may differ only in their seed, and
must come from one commit, one machine and one precision.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sprintnet.config import Config, load_config
from sprintnet.errors import SettingsError
from sprintnet.runs.folder import RunFolder, evaluation_split, open_run, read_json, read_rows
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results"
CLOCK = (
    "train_seconds: whitening, then data order, augmentation, forward, backward and update of every epoch, without evaluation "
    "and checkpoints; warmup_seconds: of a GPU, before these; tta.seconds: predictions of all test images, with TTA where the "
    "confidence is at most the setting tta; command_seconds: from loading the cached data to the saved metrics, without imports"
)
TIMES = ("train_seconds", "warmup_seconds", "images_per_second", "command_seconds", "epoch_train_seconds", "clock")
SHARED = (
    "commit", "code_sha256", "versions", "cpu", "processor", "cores", "gpu", "cuda", "precision", "threads", "data_sha256",
)  # fmt: skip


def spread(values: list[float]) -> dict[str, object]:
    """Returns mean, sample standard deviation (None for a single value), and the values in the order of the seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": deviation, "values": values}


def tta_metrics(entries: list[dict[str, float]]) -> dict[str, object] | None:
    """Returns accuracy and seconds of test-time augmentation, or None where the recipe has none."""
    if not entries:
        return None
    return {key: spread([entry[key] for entry in entries]) for key in ("accuracy", "seconds")}


def without_location(config: Config) -> Config:
    """Returns the settings with the name of a custom dataset instead of its path."""
    return replace(config, data=replace(config.data, name=Path(config.data.name).name))


def of_one_recipe(runs: Sequence[RunFolder], *, is_rehearsal: bool = False) -> tuple[list[Config], dict[str, Any]]:
    """Returns the settings of runs that differ in their seed alone, and machine and code; exits where they differ in more."""
    configs, records = [without_location(load_config(run.config)) for run in runs], [read_json(run.environment) for run in runs]
    if len({replace(config, seed=0) for config in configs}) > 1 or len({config.seed for config in configs}) < len(configs):
        raise SystemExit("the runs must differ in their seed and in no other setting")
    if "+" in (records[0]["commit"] or "+") and not is_rehearsal:
        raise SystemExit("the runs come from code with uncommitted changes and could not be repeated")
    if differing := [key for key in SHARED if len({json.dumps(record[key]) for record in records}) > 1]:
        raise SystemExit(f"the runs differ in {', '.join(differing)}")
    return configs, {key: records[0][key] for key in SHARED}


def described(recipe: str, runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Returns what a row says of its runs beside the results: machine, code, recipe, settings, seeds."""
    configs, record = of_one_recipe(runs)
    seeds = [config.seed for config in configs]
    return {**record, "recipe": recipe, "settings": configs[0].to_toml(), "seeds": seeds, "n": len(runs)}


def row(runs: list[RunFolder], *, is_rehearsal: bool = False) -> dict[str, object]:
    """Returns the row about these runs; exits where they cannot be averaged."""
    configs, record = of_one_recipe(runs, is_rehearsal=is_rehearsal)
    metrics = [read_json(run.metrics) for run in runs]
    tables = [read_rows(run.results) for run in runs]
    split = evaluation_split(metrics[0])
    return {
        **record,
        "settings": configs[0].to_toml(),
        "seeds": [config.seed for config in configs],
        "n": len(runs),
        f"{split}_accuracy": spread([entry[split]["accuracy"] for entry in metrics]),
        "tta": tta_metrics([entry[split]["tta"] for entry in metrics if "tta" in entry[split]]),
        "train_seconds": spread([entry["train_seconds"] for entry in metrics]),
        "warmup_seconds": spread([entry.get("warmup_seconds", 0.0) for entry in metrics]),
        "images_per_second": spread([entry["images_per_second"] for entry in metrics]),
        "command_seconds": [entry["command_seconds"] for entry in metrics],
        "skipped_steps": [entry["skipped_steps"] for entry in metrics],
        "peak_gib": [entry["peak_gib"] for entry in metrics],
        "epoch_train_seconds": [[float(line["train_seconds"]) for line in table] for table in tables],
        "epoch_val_accuracy": [[float(line["val_accuracy"]) for line in table] for table in tables],
        "clock": CLOCK,
    }


def main() -> None:
    """Appends the row and prints its accuracy and speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name of the result files, such as davidnet-24-epochs")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished run folders")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the row goes")
    parser.add_argument("--rehearse", action="store_true", help="take code with uncommitted changes too")
    parser.add_argument("--untimed", action="store_true", help="leave times out: the runs were paused, or shared the machine")
    options = parser.parse_args()
    try:
        runs = [open_run(path) for path in options.runs]
        entry = row(runs, is_rehearsal=options.rehearse)
        if options.untimed:
            entry |= dict.fromkeys(TIMES)
    except SettingsError as error:
        raise SystemExit(str(error)) from None
    append_row(options.folder / f"{options.name}.jsonl", entry)
    if not options.untimed:
        printed = runs[-1].log_text.read_text("utf-8")
        table = printed[printed.index("Using Device") :]  # the lines before name folders of this machine
        (options.folder / f"{options.name}.txt").write_text(table, "utf-8")
    accuracy = entry.get("test_accuracy") or entry["val_accuracy"]
    rate = entry["images_per_second"]
    print(f"{options.name}: n={entry['n']}, accuracy {accuracy}, images/s {rate}, {entry['cpu']}")


if __name__ == "__main__":
    main()
