"""Appends one row about finished runs of one recipe to a JSONL file: what ran, on what, how often, what came out.

    sprintnet study davidnet --seeds 5
    python benchmarks/record.py davidnet-24-epochs runs/study/davidnet/seed-*

Writes benchmarks/results/NAME.jsonl, and the last run's printed table as NAME.txt. The runs must differ in their seed alone
and come from one commit, one machine and one precision; anything else is refused.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

from sprintnet.config import Config, load_config
from sprintnet.errors import SettingsError
from sprintnet.runs.folder import RunFolder, evaluation_split, open_run, read_json, read_rows
from sprintnet.runs.io import append_row

RESULTS = Path(__file__).parent / "results"
CLOCK = (
    "train_seconds: whitening, then data order, augmentation, forward, backward and update of every epoch, not evaluation and "
    "checkpoints; tta_line.seconds: all test answers, those below the recipe's confidence through six views; "
    "command_seconds: the whole pipeline after the imports, from loading the cached data to the saved metrics"
)
TIMES = ("train_seconds", "images_per_second", "command_seconds", "epoch_train_seconds", "clock")
SHARED = ("commit", "versions", "cpu", "cores", "gpu", "cuda", "precision", "threads", "data_sha256")


def spread(values: list[float]) -> dict[str, float | None]:
    """Returns mean and sample standard deviation (None for a single value)."""
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}


def tta_line(figures: list[dict[str, float]]) -> dict[str, object] | None:
    """Returns accuracy and seconds of the answers over six views, or None where the recipe asks for none."""
    if not figures:
        return None
    return {key: spread([entry[key] for entry in figures]) for key in ("accuracy", "seconds")}


def nameless(config: Config) -> Config:
    """Returns the settings without the place of one's own data on this machine."""
    return replace(config, data=replace(config.data, name=Path(config.data.name).name))


def row(runs: list[RunFolder]) -> dict[str, object]:
    """Returns the row about these runs; exits where they do not belong together."""
    configs = [nameless(load_config(run.config)) for run in runs]
    records = [read_json(run.environment) for run in runs]
    metrics = [read_json(run.metrics) for run in runs]
    if len({replace(config, seed=0) for config in configs}) > 1 or len({config.seed for config in configs}) < len(configs):
        raise SystemExit("the runs must differ in their seed, and in nothing else")
    if "+" in (records[0]["commit"] or "+"):
        raise SystemExit("the runs come from a tree with uncommitted changes: nobody could repeat them")
    if differing := [key for key in SHARED if len({json.dumps(record[key]) for record in records}) > 1]:
        raise SystemExit(f"the runs differ in {', '.join(differing)}")
    tables = [read_rows(run.results) for run in runs]
    judged = evaluation_split(metrics[0])
    return {
        **{key: records[0][key] for key in SHARED},
        "settings": configs[0].to_toml(),
        "seeds": [config.seed for config in configs],
        "n": len(runs),
        f"{judged}_accuracy": spread([entry[judged]["accuracy"] for entry in metrics]),
        "tta_line": tta_line([entry[judged]["tta"] for entry in metrics if "tta" in entry[judged]]),
        "train_seconds": spread([entry["train_seconds"] for entry in metrics]),
        "images_per_second": spread([entry["images_per_second"] for entry in metrics]),
        "command_seconds": [entry["command_seconds"] for entry in metrics],
        "skipped_steps": [entry["skipped_steps"] for entry in metrics],
        "peak_gib": [entry["peak_gib"] for entry in metrics],
        "epoch_train_seconds": [[float(line["train_seconds"]) for line in table] for table in tables],
        "epoch_val_accuracy": [[float(line["val_accuracy"]) for line in table] for table in tables],
        "clock": CLOCK,
    }


def main() -> None:
    """Appends the row and shows its headline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the result files, such as davidnet-24-epochs")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished run folders")
    parser.add_argument("--untimed", action="store_true", help="leave times out: the runs stood still, or had others beside")
    options = parser.parse_args()
    try:
        runs = [open_run(path) for path in options.runs]
        entry = row(runs)
        if options.untimed:
            entry |= dict.fromkeys(TIMES)
    except SettingsError as error:
        raise SystemExit(str(error)) from None
    append_row(RESULTS / f"{options.name}.jsonl", entry)
    if not options.untimed:
        printed = runs[-1].log_text.read_text("utf-8")
        table = printed[printed.index("Using Device") :]  # what comes before tells of this machine's folders
        (RESULTS / f"{options.name}.txt").write_text(table, "utf-8")
    accuracy = entry.get("test_accuracy") or entry["val_accuracy"]
    print(f"{options.name}: n={entry['n']}, accuracy {accuracy}, images/s {entry['images_per_second']}")


if __name__ == "__main__":
    main()
